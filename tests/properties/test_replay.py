"""A replay against one that is written down naively: one event at a time, every title sorted."""

from collections import Counter

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from worlds import NOW_MS, event, item_model

from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.trial.log_sources import records_of_values
from streamer.evaluation.trial.replaying import ReplayPlan, replay_records
from streamer.evaluation.trial.targets import TargetKind
from streamer.events import decode_event
from streamer.factors import RecencyFoldIn, blend

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
MODEL = item_model(n_items=30, n_factors=4)
ROWS = {item_id: row for row, item_id in enumerate(MODEL.item_ids)}
TYPES = ("play_stop", "play_progress", "trailer_view", "detail_view", "thumb_up", "thumb_down")
CONTACTS = ("play", "brief_play", "detail_view", "trailer_view")

actions = st.tuples(
    st.integers(0, 2),  # viewer
    st.integers(0, 33),  # title; the last ones are unknown
    st.integers(0, 3 * DAY_MS // 600_000),  # many at the same time
    st.sampled_from(TYPES),
    st.sampled_from((10, 900, 3000)),
)


def value_of(action):
    user, item, step, event_type, watched_s = action
    more = {"watched_s": watched_s} if event_type.startswith("play_") else {}
    return event(f"u{user}", f"title-{item}", NOW_MS + 600_000 * step, event_type, **more)


def history_of(values):
    golden = GoldenHistories()
    golden.apply(list(records_of_values(values)))
    return golden.read([decode_event(values[0], 2**47).user_id] if values else ["nobody"])


def served(values, now_ms):
    """Return the scores of all titles for a viewer who has done this, as a reader serves."""
    history = history_of(values)
    factors = RecencyFoldIn()(history, MODEL)
    if factors.n_solved[0] == 0:
        return MODEL.popularity
    newest_ms = int(history.words[0, 0] >> np.uint64(16))
    idle_s = np.array([max(0, now_ms - newest_ms) / 1000])
    return MODEL.item_factors @ blend(factors.pairs, idle_s, MODEL.params.blend_half_life_s)[0]


def lasting(values):
    """Return scores by everything without recency; histories here never overflow."""
    factors = RecencyFoldIn()(history_of(values), MODEL)
    if factors.n_solved[0] == 0:
        return MODEL.popularity
    return MODEL.item_factors @ factors.vectors[0, 1]


def naive_ranks(values, first, target_kind):
    """Yield the viewer and each contender's bounds of the rank of every target, in order."""
    events = [decode_event(value, 2**47) for value in values]
    assert all(each.evidence is not None for each in events)
    for at in range(first, len(events)):
        now = events[at]
        mine = [n for n in range(at) if events[n].user_id == now.user_id]
        seen = {events[n].item_id for n in mine}
        kind = now.evidence.kind.name.lower()
        is_asked = kind == "play" if target_kind is TargetKind.PLAYS else kind in CONTACTS
        if not is_asked or now.item_id in seen or now.item_id not in ROWS:
            continue
        before = [values[n] for n in mine]
        first_ones = [values[n] for n in mine if n < first]
        midnight_ms = now.event_time_ms // DAY_MS * DAY_MS
        yesterday = [values[n] for n in mine if events[n].event_time_ms < midnight_ms]
        scores = {
            "recency_fold_in": served(before, now.event_time_ms),
            "popularity": MODEL.popularity,
            "trending": trending(events[:at]),
            "static": served(first_ones, now.event_time_ms),
            "nightly": lasting(yesterday),
            "full_history": lasting(before),
            "capacity_30": served(before, now.event_time_ms),
        }
        yield now.user_id, {name: bounds(each, now, seen) for name, each in scores.items()}


def trending(events):
    sums = np.zeros(MODEL.n_items)
    begun = set()
    for each in events:
        pair = each.user_id, each.item_id
        if each.evidence.kind.name == "PLAY" and each.item_id in ROWS and pair not in begun:
            begun.add(pair)
            sums[ROWS[each.item_id]] += 2.0 ** ((each.event_time_ms - NOW_MS) / WEEK_MS)
    return sums


def bounds(scores, now, seen):
    """Return the least and the greatest rank that rounding allows; ties break by row."""
    target = ROWS[now.item_id]
    others = [row for item, row in ROWS.items() if item not in seen and row != target]
    slack = 1e-5 * np.abs(scores).max()
    gaps = [(float(scores[row] - scores[target]), row) for row in others]
    surely = sum(gap > slack or (gap == 0.0 and row < target) for gap, row in gaps)
    maybe = sum(0.0 < abs(gap) <= slack for gap, _ in gaps)
    return surely, surely + maybe


@settings(max_examples=60, deadline=None)
@given(
    st.lists(actions, min_size=1, max_size=30),
    st.sampled_from((0.0, 0.4)),
    st.sampled_from(list(TargetKind)),
)
def test_every_rank_is_that_of_a_naive_replay(chosen, share, target_kind):
    kept = Counter((user, event_type) for user, _, _, event_type, _ in chosen)
    assume(max(kept.values()) <= 5)  # or a group overflows, and `lasting` is not everything
    in_time = sorted(chosen, key=lambda action: action[2])
    values = [value for value in map(value_of, in_time) if decode_event(value, 2**47).evidence]
    first = int(len(values) * share)
    expected = list(naive_ranks(values, first, target_kind))
    assume(expected)
    expected.sort(key=lambda each: each[0])  # by viewer, in order of time
    plan = ReplayPlan(MODEL, {"recency_fold_in": RecencyFoldIn()}, share, 5, target_kind, (30,))
    trial = replay_records(records_of_values(values), plan).trial
    assert len(trial.targets) == len(expected)
    for name, board in trial.boards.items():
        for rank, (_, each) in zip(board.ranks.tolist(), expected, strict=True):
            least, most = each[name]
            assert least <= rank <= most, (name, rank, least, most)
