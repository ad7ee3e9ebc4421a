"""Replay by hand: tiny logs whose rankings can be counted on paper."""

import math

import numpy as np
import oracle
import pytest
from unit.test_runtime_fakes import NOON_MS, FaultyStore
from worlds import NOW_MS, event, item_model, records

from streamer.errors import ConfigError
from streamer.evaluation.trial.event_log import collect_events
from streamer.evaluation.trial.learning import Apprentice
from streamer.evaluation.trial.log_sources import records_of_values
from streamer.evaluation.trial.replaying import ReplayPlan, replay_records
from streamer.evaluation.trial.snapshots import histories_at
from streamer.evaluation.trial.targets import TargetKind
from streamer.factors import FeatureDtype, FoldInParams, ItemModel, RecencyFoldIn, UserFactors
from streamer.history import digests, encode
from streamer.pipeline.records import Decoder
from streamer.runtime.cache import HistoryCache
from streamer.runtime.updater import Updater

DAY_MS = 86_400_000
MIDNIGHT_MS = NOW_MS // DAY_MS * DAY_MS


def line_of_items(n_items=5, popularity=None):
    """Items on a line: item-n has the factor n + 1, so a positive taste ranks them 4 3 2 1 0."""
    return ItemModel.of(
        9,
        FoldInParams(alpha=1.0, regularization=1.0),
        [f"item-{row}" for row in range(n_items)],
        np.arange(1, n_items + 1, dtype=np.float32)[:, None],
        np.array(popularity or range(n_items, 0, -1), np.float32),
    )


class Stubborn:
    """Serves the same vector to everybody who has done anything."""

    name = "stubborn"

    def __init__(self, vector=(1.0,)):
        self._vector = np.array(vector, np.float32)

    def __call__(self, histories, model):
        n_users = len(histories)
        vectors = np.broadcast_to(self._vector, (n_users, 1, model.n_factors)).copy()
        warm = (histories.counts > 0).astype(np.int64)
        vectors[warm == 0] = 0.0
        return UserFactors(vectors, warm, np.zeros(n_users, bool))


class Recorder(RecencyFoldIn):
    """Remembers which histories it was asked about."""

    name = "recorder"

    def __init__(self):
        self.asked = []

    def __call__(self, histories, model):
        self.asked += [set(row[row != 0].tolist()) for row in histories.item_keys]
        return super().__call__(histories, model)


def replayed(values, model, learner, targets_from=0.0, k=2, capacities=()):
    plan = ReplayPlan(model, {learner.name: learner}, targets_from, k, capacities=capacities)
    return replay_records(records_of_values(values), plan)


def ranks_of(report, name):
    return report.trial.boards[name].ranks.tolist()


def metrics_of(report, name):
    return {label: metric.value for label, metric in report.standings[name].metrics.items()}


def test_recall_ndcg_and_mrr_are_those_that_one_counts_by_hand():
    """Ann is cold, then ranked 4 3 2 1 0 without what she has touched."""
    values = [
        event("ann", "item-1", NOW_MS),  # cold: popularity 0 1 2 3 4, rank 1
        event("ann", "item-3", NOW_MS + 1),  # 4 3 2 0: rank 1
        event("ann", "item-4", NOW_MS + 2),  # 4 2 0: rank 0
        event("ann", "item-0", NOW_MS + 3),  # 2 0: rank 1
        event("ben", "item-4", NOW_MS + 4),  # cold, rank 4
    ]
    report = replayed(values, line_of_items(), Stubborn())
    assert ranks_of(report, "stubborn") == [1, 1, 0, 1, 4]
    second = 1 / math.log2(3)
    assert metrics_of(report, "stubborn") == pytest.approx(
        {"recall@2": 4 / 5, "ndcg@2": (3 * second + 1) / 5, "mrr@2": (3 / 2 + 1) / 5}
    )
    # By popularity 0 1 2 3 4 without what was touched: 1, then 0 2 3 4, 0 2 4, 0 2.
    assert ranks_of(report, "popularity") == [1, 2, 2, 0, 4]
    assert metrics_of(report, "popularity")["recall@2"] == 2 / 5


def test_ties_break_by_row():
    model = line_of_items(popularity=[1, 1, 1, 1, 1])
    values = [event("ann", "item-3", NOW_MS), event("ann", "item-2", NOW_MS + 1)]
    report = replayed(values, model, Stubborn((0.0,)))
    # The vector is zero, so all titles tie: 0 1 2 before 3; then 0 1 before 2.
    assert ranks_of(report, "stubborn") == [3, 2]
    assert ranks_of(report, "popularity") == [3, 2]


def test_an_event_is_scored_before_it_is_learned_and_then_known():
    recorder = Recorder()
    model = item_model()
    values = [event("ann", f"title-{n}", NOW_MS + n) for n in range(3)]
    replayed(values, model, recorder)
    first_three = recorder.asked[:3]
    keys = model.item_keys.tolist()
    assert first_three == [set(), {keys[0]}, {keys[0], keys[1]}]


def test_event_time_decides_the_order_and_not_the_place_in_the_log():
    values = [event("ann", f"item-{n}", NOW_MS + 10 * n) for n in range(5)]
    in_order = replayed(values, line_of_items(), RecencyFoldIn())
    shuffled = replayed([values[n] for n in (3, 0, 4, 2, 1)], line_of_items(), RecencyFoldIn())
    for name, board in in_order.trial.boards.items():
        assert board.ranks.tolist() == ranks_of(shuffled, name)


def targets_of(values, targets_from=0.0, model=None):
    report = replayed(values, model or line_of_items(), Stubborn(), targets_from)
    return report.trial.targets.item_rows.tolist()


def test_targets_are_plays_of_known_titles_that_were_never_touched():
    values = [
        event("ann", "item-0", NOW_MS, "detail_view"),
        event("ann", "item-0", NOW_MS + 1),  # touched
        event("ann", "item-1", NOW_MS + 2, watched_s=10),  # brief
        event("ann", "item-1", NOW_MS + 3),  # touched
        event("ann", "item-9", NOW_MS + 4),  # unknown
        event("ann", "item-2", NOW_MS + 5, "thumb_up"),  # no play
        event("ann", "item-3", NOW_MS + 6, "play_progress"),
        event("ann", "item-3", NOW_MS + 7),  # the same viewing
        b"{",
    ]
    report = replayed(values, line_of_items(), Stubborn())
    assert report.trial.targets.item_rows.tolist() == [3]
    assert (report.trial.targets.n_touched, report.trial.targets.n_unknown) == (3, 1)
    assert report.origin.rejected == {"not_json": 1}


def test_contacts_are_the_first_time_that_a_title_is_looked_at():
    values = [
        event("ann", "item-0", NOW_MS, "detail_view"),
        event("ann", "item-0", NOW_MS + 1),  # touched
        event("ann", "item-1", NOW_MS + 2, watched_s=10),
        event("ann", "item-2", NOW_MS + 3, "thumb_up"),  # no contact
        event("ann", "item-2", NOW_MS + 4),  # touched
        event("ann", "item-3", NOW_MS + 5, "trailer_view"),
        event("ann", "item-4", NOW_MS + 6),
    ]
    learners = {"stubborn": Stubborn()}
    plan = ReplayPlan(line_of_items(), learners, 0.0, 2, TargetKind.CONTACTS)
    targets = replay_records(records_of_values(values), plan).trial.targets
    assert targets.item_rows.tolist() == [0, 1, 3, 4]
    assert targets.n_touched == 2


@pytest.mark.parametrize(
    ("targets_from", "expected"),
    [(NOW_MS + 1, [2, 3]), (NOW_MS - 1, [0, 1, 2, 3]), (0.5, [2, 3]), (0.0, [0, 1, 2, 3])],
)
def test_earlier_events_only_fill_histories(targets_from, expected):
    values = [event("ann", f"item-{n}", NOW_MS + n) for n in range(4)]
    assert targets_of(values, targets_from) == expected


def test_what_a_forget_erases_is_no_target_and_fills_no_history():
    values = [
        event("ann", "item-0", NOW_MS),
        event("ann", None, NOW_MS + 1, "forget"),
        event("ann", "item-0", NOW_MS + 300_002),
        event("ben", "item-1", NOW_MS),
    ]
    report = replayed(values, line_of_items(), Stubborn())
    assert report.trial.targets.item_rows.tolist() == [0, 1]
    assert report.trial.history_lengths.tolist() == [0, 0]
    assert report.trial.pauses_ms.tolist() == [-1, -1]


def test_trending_follows_what_viewers_began_lately():
    values = [
        event("ann", "item-0", NOW_MS),
        event("ben", "item-0", NOW_MS + 1),
        event("cat", "item-1", NOW_MS + 15 * DAY_MS),  # two half-lives later, so 1 against 1/2
        event("dan", "item-1", NOW_MS + 15 * DAY_MS + 1),
        event("eve", "item-0", NOW_MS + 15 * DAY_MS + 2),
    ]
    report = replayed(values, line_of_items(), Stubborn())
    # In the order of viewers: nothing trends; item-0; item-0 leads; item-1 leads, and item-0 next.
    assert ranks_of(report, "trending") == [0, 0, 1, 0, 1]


def test_heartbeats_and_second_viewings_do_not_trend():
    values = [event("ann", "item-1", NOW_MS + n, "play_progress") for n in range(9)]
    values += [event("ben", "item-2", NOW_MS + 10), event("cat", "item-2", NOW_MS + 11)]
    values += [event("dan", "item-1", NOW_MS + 12)]
    assert ranks_of(replayed(values, line_of_items(), Stubborn()), "trending")[-1] == 1


def test_trending_outlives_many_half_lives():
    """Sums are scaled down on the way; only their order counts."""
    values = [event(f"u{n}", "item-1", NOW_MS + n * 70 * DAY_MS) for n in range(40)]
    values.append(event("zoe", "item-1", NOW_MS + 2_801 * DAY_MS))
    assert ranks_of(replayed(values, line_of_items(), Stubborn()), "trending") == [1] + 40 * [0]


def test_static_stays_as_it_was_when_the_targets_began():
    values = [event("ann", f"item-{n}", NOW_MS + n) for n in range(4)]
    recorder, model = Recorder(), line_of_items()
    replayed(values, model, recorder, targets_from=NOW_MS + 1)
    first, second, third = model.item_keys.tolist()[:3]
    assert recorder.asked[:2] == [{first, second}, {first, second, third}]
    assert recorder.asked[2] == {first, second}


def lasting_ranks(pasts, targets, model):
    """Rank each target by the `lasting` vector of what is in its past."""
    found = []
    for past, (row, seen) in zip(pasts, targets, strict=True):
        log = collect_events(records_of_values(past))
        end = np.array([len(log)])
        histories = histories_at(log, np.zeros(1, np.intp), end)
        factors = RecencyFoldIn()(histories, model)
        scores = model.item_factors @ factors.vectors[0, 1]
        if factors.n_solved[0] == 0:
            scores = model.popularity
        unseen = np.setdiff1d(np.arange(model.n_items), seen)
        found.append(int(np.count_nonzero(scores[unseen] > scores[row])))
    return found


def test_full_history_is_lasting_where_a_history_holds_everything():
    model = item_model()
    past = [
        event("ann", "title-3", MIDNIGHT_MS, "thumb_up"),
        event("ann", "title-4", MIDNIGHT_MS + 1, "detail_view"),
        event("ann", "title-4", MIDNIGHT_MS + 2, "thumb_down"),
        event("ann", "title-5", MIDNIGHT_MS + 3, watched_s=900),
        event("ann", "title-5", MIDNIGHT_MS + 4, watched_s=2900),
        event("ann", "title-6", MIDNIGHT_MS + 5, "my_list_add"),
        event("ann", "title-6", MIDNIGHT_MS + 6, "my_list_remove"),
    ]
    values = [*past, event("ann", "title-9", MIDNIGHT_MS + 7)]
    report = replayed(values, model, RecencyFoldIn(), MIDNIGHT_MS + 6)
    expected = lasting_ranks([past], [(9, [3, 4, 5, 6])], model)
    assert ranks_of(report, "full_history") == expected


def test_nightly_knows_what_was_before_midnight_and_full_history_everything():
    model = item_model()
    evening = [event("ann", f"title-{n}", MIDNIGHT_MS - 100 + n) for n in range(3)]
    morning = [event("ann", f"title-{n}", MIDNIGHT_MS + n) for n in range(3, 7)]
    report = replayed([*evening, *morning], model, RecencyFoldIn(), MIDNIGHT_MS - 1)
    played = [(row, list(range(row))) for row in range(3, 7)]
    assert ranks_of(report, "nightly") == lasting_ranks([evening] * 4, played, model)
    pasts = [evening + morning[:n] for n in range(4)]
    assert ranks_of(report, "full_history") == lasting_ranks(pasts, played, model)


def test_full_history_keeps_more_than_a_history_holds():
    model = item_model(n_items=120)
    values = [event("ann", f"title-{n}", MIDNIGHT_MS + n) for n in range(100)]
    report = replayed(values, model, RecencyFoldIn(), MIDNIGHT_MS + 98)
    weights = model.params.alpha * np.eye(99)
    x = model.item_factors[:99].astype(np.float64)
    left = model.item_gram + np.eye(model.n_factors) + x.T @ weights @ x
    scores = model.item_factors @ np.linalg.solve(left, x.T @ weights @ np.ones(99))
    expected = int(np.count_nonzero(scores[99:] > scores[99]))
    assert ranks_of(report, "full_history") == [expected]
    assert report.trial.history_lengths.tolist() == [30]


def test_the_formats_own_capacity_is_the_default_learner_to_the_rank(log_records):
    """Its histories are cut from the log, and solved by another code, with the same outcome."""
    values = [record.value for record in log_records]
    report = replayed(values, item_model(n_items=80), RecencyFoldIn(), 0.2, capacities=(30,))
    learner, same = (report.trial.boards[name] for name in ("recency_fold_in", "capacity_30"))
    assert report.n_targets > 100
    assert report.trial.history_lengths.max() > 30
    np.testing.assert_array_equal(
        report.trial.long_lengths["capacity_30"], [*report.trial.history_lengths]
    )
    np.testing.assert_array_equal(same.is_warm, learner.is_warm)
    assert np.mean(same.ranks == learner.ranks) > 0.99  # a tie may fall to the other side


def test_another_capacity_holds_so_many_plays_and_leaves_other_kinds_alone():
    model = item_model(n_items=120)
    values = [event("ann", f"title-{n}", NOW_MS + n) for n in range(60)]
    values += [event("ann", f"title-{60 + n}", NOW_MS + 60 + n, "detail_view") for n in range(12)]
    values.append(event("ann", "title-90", NOW_MS + 99))
    report = replayed(values, model, RecencyFoldIn(), NOW_MS + 98, capacities=(1, 50, 1000))
    lengths = {name: each.tolist() for name, each in report.trial.long_lengths.items()}
    assert lengths == {"capacity_1": [11], "capacity_50": [60], "capacity_1000": [70]}
    sizes = report.to_json()["history_bytes"]
    assert sizes["capacity_30"] == 24 + 16 * 40
    assert sizes["capacity_1000"] == 24 + 16 * 70


def test_a_capacity_must_be_one():
    for capacity in (0, 1001):
        with pytest.raises(ConfigError, match="room for 1 to 1,000 plays"):
            replayed([], line_of_items(), RecencyFoldIn(), capacities=(capacity,))


def test_a_delay_hides_what_came_within_it():
    recorder = Recorder()
    model = line_of_items()
    minute = 60_000
    times = (0, 58 * minute, 62 * minute, 63 * minute)
    values = [event("ann", f"item-{n}", NOW_MS + at) for n, at in enumerate(times)]
    replayed(values, model, recorder, targets_from=NOW_MS + 62 * minute)
    keys = model.item_keys.tolist()
    # The trial, static, then delays of 5 min, 1 h and a day.
    everything, until_62 = {keys[0], keys[1], keys[2]}, {keys[0], keys[1], keys[2]}
    assert recorder.asked == [everything, until_62, {keys[0], keys[1]}, {keys[0]}, set()]


def test_what_is_as_old_as_the_delay_has_arrived():
    recorder = Recorder()
    values = [event("ann", "item-0", NOW_MS), event("ann", "item-1", NOW_MS + 300_000)]
    replayed(values, line_of_items(), recorder, targets_from=NOW_MS)
    assert len(recorder.asked[2]) == 1


def test_without_a_target_it_says_why():
    values = [event("ann", "item-0", NOW_MS), event("ann", "elsewhere", NOW_MS + 1)]
    with pytest.raises(ConfigError, match="before and 1 of titles that the model does"):
        replayed(values, line_of_items(), Stubborn(), NOW_MS)
    with pytest.raises(ConfigError, match="no valid event in the log; rejected: 1 not_json"):
        replayed([b"{"], line_of_items(), Stubborn())


def test_a_learner_may_not_be_called_as_a_baseline():
    learner = Stubborn()
    learner.name = "nightly"
    with pytest.raises(ConfigError, match="give it another name"):
        replayed([], line_of_items(), learner)


# --- the worker's own histories ----------------------------------------------------------------


def busy_log():
    """A log with everything in it: duplicates, late events, a forget, what does not fit."""
    rng = np.random.default_rng(4)
    kinds = ("play_stop", "play_progress", "detail_view", "thumb_up", "thumb_down", "my_list_add")
    for n in range(3_000):
        user, item = f"u{rng.integers(12)}", f"title-{rng.integers(90)}"
        if n == 1_700:
            yield event("u3", None, NOW_MS + 10_000_000, "forget")
        if n % 500 == 7:
            yield b'{"type": "play_stop"}'
        kind = kinds[rng.integers(len(kinds))]
        value = event(user, item, NOW_MS + int(rng.integers(20_000_000)), kind)
        yield value
        if n % 9 == 0:
            yield value


@pytest.fixture(scope="module")
def log_records():
    return list(records_of_values(busy_log()))


@pytest.fixture(scope="module")
def workers_values(log_records):
    """Return what a worker's updater writes into its store."""
    store, decoder = FaultyStore(), Decoder()
    updater = Updater(
        store, HistoryCache(5), FeatureDtype.F32, lambda: NOON_MS / 1000, lambda _: None, None
    )
    for start in range(0, len(log_records), 100):
        decoded = decoder.decode(log_records[start : start + 100])
        updater.apply(decoded.user_ids, decoded.arrived, [])
    return {user: store.values[oracle.history_key(user)] for user in (f"u{n}" for n in range(12))}


def test_replayed_histories_are_the_workers_byte_for_byte(log_records, workers_values):
    log = collect_events(log_records)
    everybody = np.arange(len(log.user_ids))
    histories = histories_at(log, everybody, log.starts[1:])
    values = encode(histories, digests(histories))
    assert dict(zip(log.user_ids, values, strict=True)) == workers_values
    assert workers_values["u3"] != workers_values["u4"]


def test_moments_on_the_way_do_not_change_where_it_ends(log_records, workers_values):
    log = collect_events(log_records)
    users = np.concatenate([log.users, np.arange(len(log.user_ids))])
    ends = np.concatenate([np.arange(len(log)), log.starts[1:]])
    order = np.lexsort((ends, users))
    histories = histories_at(log, users[order], ends[order])
    last = np.flatnonzero(np.append(users[order][1:] != users[order][:-1], True))
    chosen = histories.take(last)
    values = encode(chosen, digests(chosen))
    assert dict(zip(log.user_ids, values, strict=True)) == workers_values


def test_a_replay_that_only_learns_has_the_workers_histories_too(log_records, workers_values):
    apprentice = Apprentice(item_model(), RecencyFoldIn())
    for start in range(0, len(log_records), 300):
        apprentice.learn(log_records[start : start + 300])
    assert apprentice.history_values() == workers_values
    learned = apprentice.learned()
    assert learned.rejected == {"bad_user_id": 6}
    assert (learned.n_users, learned.n_fold_rejected) == (12, 0)
    assert learned.n_events == len(log_records) - 6


def test_with_kafkas_timestamps_a_forget_counts_from_its_record():
    values = [
        event("ann", "item-0", NOW_MS),
        event("ann", None, NOW_MS - DAY_MS, "forget"),
        event("ann", "item-1", NOW_MS + 300_000 + 12, "detail_view"),
    ]
    log = collect_events(records(*values, at_ms=NOW_MS + 10))
    assert log.forgotten_before_ms.tolist() == [NOW_MS + 11 + 300_000]
    assert len(log) == 1


# --- what a report says beside the three metrics -----------------------------------------------


def group_of(groups, label):
    (found,) = (group for group in groups if group.label == label)
    return found


def test_groups_are_by_the_history_just_before_the_play():
    values = [event("ann", f"item-{n}", NOW_MS + n * 600_000) for n in range(4)]
    report = replayed(values, line_of_items(), Stubborn(), k=2)
    # Cold 0, then 4 3 2 1, 4 3 2, 4 3 with ranks 3, 2, 1.
    lengths = report.by_history_length
    assert [(group.label, group.n_targets) for group in lengths if group.n_targets] == [
        ("0", 1),
        ("1-2", 2),
        ("3-5", 1),
    ]
    assert group_of(lengths, "1-2").recall["stubborn"] == 0.0
    assert group_of(lengths, "3-5").recall["stubborn"] == 1.0
    assert math.isnan(group_of(lengths, "6-10").recall["stubborn"])
    pauses = report.by_pause
    assert group_of(pauses, "no history").recall == dict.fromkeys(report.standings, 1.0)
    assert group_of(pauses, "5-30 min").n_targets == 3


@pytest.mark.parametrize(
    ("pause_ms", "label"),
    [
        (0, "under 5 min"),
        (299_999, "under 5 min"),
        (300_000, "5-30 min"),
        (1_800_000, "30-60 min"),
        (3_600_000, "1-24 h"),
        (DAY_MS, "1-7 days"),
        (7 * DAY_MS, "over 7 days"),
    ],
)
def test_pauses_belong_to_the_group_that_they_reach(pause_ms, label):
    values = [event("ann", "item-0", NOW_MS), event("ann", "item-1", NOW_MS + pause_ms)]
    report = replayed(values, line_of_items(), Stubborn(), targets_from=0.5)
    assert group_of(report.by_pause, label).n_targets == 1


def test_freshness_is_worth_what_a_delay_loses():
    """Ann's taste is known at once; with a delay popularity counts, which is wrong."""
    values = [event("ann", "item-4", NOW_MS), event("ann", "item-3", NOW_MS + 1_000)]
    report = replayed(values, line_of_items(), Stubborn(), targets_from=0.5, k=1)
    assert [(group.label, group.recall["stubborn"]) for group in report.by_delay] == [
        ("at once", 1.0),
        ("5 min", 0.0),
        ("1 h", 0.0),
        ("24 h", 0.0),
    ]


def test_coverage_is_the_share_of_titles_that_are_in_any_list():
    values = [event("ann", "item-2", NOW_MS), event("ann", "item-0", NOW_MS + 1)]
    report = replayed(values, line_of_items(), Stubborn(), k=2)
    # Cold: 0 1. Then 4 3.
    assert report.standings["stubborn"].coverage == 4 / 5
    # 0 1, twice.
    assert report.standings["popularity"].coverage == 2 / 5
    board = report.trial.boards["stubborn"]
    assert board.best_rows.tolist() == [[0, 1], [4, 3]]


def test_lists_leave_out_what_was_touched_and_end_where_titles_do():
    values = [event("ann", f"item-{n}", NOW_MS + at) for at, n in enumerate((4, 2, 1))]
    report = replayed(values, line_of_items(), Stubborn(), k=4)
    assert report.trial.boards["stubborn"].best_rows.tolist() == [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
        [3, 1, 0, -1],
    ]


def test_a_contender_is_cold_where_it_has_no_vector():
    values = [event("ann", "item-2", NOW_MS), event("ann", "item-0", NOW_MS + 1)]
    report = replayed(values, line_of_items(), Stubborn())
    cold = {name: standing.cold for name, standing in report.standings.items()}
    assert cold == {
        "stubborn": 0.5,
        "popularity": 0.0,
        "trending": 0.0,
        "static": 1.0,
        "nightly": 1.0,
        "full_history": 0.5,
    }


class Broken(Stubborn):
    name = "broken"

    def __call__(self, histories, model):
        factors = super().__call__(histories, model)
        factors.vectors[:] = np.nan
        return UserFactors(factors.vectors, factors.n_solved, np.ones(len(histories), bool))


def test_a_rejected_solve_is_served_popularity():
    values = [event("ann", f"item-{n}", NOW_MS + n) for n in range(4)]
    report = replayed(values, line_of_items(), Broken())
    assert ranks_of(report, "broken") == ranks_of(report, "popularity")


def test_many_targets_are_asked_again_in_part(monkeypatch):
    monkeypatch.setattr("streamer.evaluation.trial.court.MAX_DELAYED_TARGETS", 7)
    monkeypatch.setattr("streamer.evaluation.trial.court.MAX_LISTED_TARGETS", 5)
    monkeypatch.setattr("streamer.evaluation.trial.court.TARGETS_AT_ONCE", 16)
    monkeypatch.setattr("streamer.evaluation.trial.ranking.MAX_SCORES_AT_ONCE", 500)
    rng = np.random.default_rng(3)
    values = [
        event(f"u{rng.integers(6)}", f"title-{rng.integers(40)}", NOW_MS + 100_000 * n)
        for n in range(300)
    ]
    report = replayed(values, item_model(), RecencyFoldIn(), k=5)
    monkeypatch.undo()
    whole = replayed(values, item_model(), RecencyFoldIn(), k=5)
    for name, board in whole.trial.boards.items():
        assert ranks_of(report, name) == board.ranks.tolist()
        assert report.trial.boards[name].best_rows.tolist() == (
            board.best_rows[report.trial.listed].tolist()
        )
    assert [group.n_targets for group in report.by_delay] == [7] * 4
    for delay_ms, ranks in whole.trial.delayed_ranks["recency_fold_in"].items():
        some = report.trial.delayed_ranks["recency_fold_in"][delay_ms]
        assert some.tolist() == ranks[report.trial.delayed].tolist()


# --- to the millisecond ------------------------------------------------------------------------


def test_what_is_a_millisecond_younger_than_the_delay_has_not_arrived():
    recorder = Recorder()
    values = [event("ann", "item-0", NOW_MS), event("ann", "item-1", NOW_MS + 299_999)]
    replayed(values, line_of_items(), recorder, targets_from=NOW_MS)
    assert recorder.asked[2] == set()


@pytest.mark.parametrize(("before_midnight_ms", "is_cold"), [(0, True), (1, False)])
def test_nightly_ends_at_midnight(before_midnight_ms, is_cold):
    first_ms = MIDNIGHT_MS - before_midnight_ms
    values = [event("ann", "item-0", first_ms), event("ann", "item-1", MIDNIGHT_MS + 1)]
    report = replayed(values, line_of_items(), Stubborn(), targets_from=first_ms)
    assert report.standings["nightly"].cold == float(is_cold)


@pytest.mark.parametrize(("days", "rank"), [(6, 1), (8, 0)])
def test_a_play_trends_half_as_much_after_seven_days(days, rank):
    """Two viewers began item-0, one began item-1 some days later."""
    later_ms = NOW_MS + days * DAY_MS
    values = [event("ann", "item-0", NOW_MS), event("ben", "item-0", NOW_MS)]
    values += [event("cat", "item-1", later_ms), event("dan", "item-1", later_ms + 1)]
    assert ranks_of(replayed(values, line_of_items(), Stubborn()), "trending")[-1] == rank


def test_what_trended_a_hundred_half_lives_ago_is_nothing():
    later_ms = NOW_MS + 700 * DAY_MS
    values = [event(user, "item-0", NOW_MS) for user in ("ann", "ben", "cat")]
    values += [event("dan", "item-1", later_ms), event("eve", "item-1", later_ms + 1)]
    assert ranks_of(replayed(values, line_of_items(), Stubborn()), "trending")[-1] == 0


@pytest.mark.parametrize("forget", ["forget", "\\u0066orget"])
def test_a_forget_in_a_file_reaches_five_minutes_beyond_itself(forget):
    values = [
        f'{{"type": "{forget}", "user_id": "ann", "event_time": {NOW_MS}}}'.encode(),
        event("ann", "item-0", NOW_MS + 300_000),
        event("ann", "item-1", NOW_MS + 300_001),
    ]
    report = replayed(values, line_of_items(), Stubborn())
    assert report.trial.targets.item_rows.tolist() == [1]
