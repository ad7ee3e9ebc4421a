import threading

import numpy as np
import pytest
from own_learners import BAD_ITEM, Constant, ShyOfOneItem
from worlds import NOW_MS, event, item_model, records

from streamer.errors import ConfigError, StoreUnavailable
from streamer.factors import (
    FeatureDtype,
    FoldInParams,
    RecencyFoldIn,
    UserFactors,
    load_learner,
)
from streamer.history import decode
from streamer.models import Pointer, load_model, write_model
from streamer.pipeline.records import Decoder
from streamer.pipeline.step import FeatureFormat, Known, LiveModel, plan
from streamer.reader import FeatureReader, ReaderSettings, Status
from streamer.stores import MemoryStore
from streamer.stores.keys import features_key, history_key

PARAMS = FoldInParams(alpha=10.0, regularization=1.0)


class FakeSource:
    """The reader's port over the values of a MemoryStore; fails when it is told to."""

    def __init__(self):
        self.store = MemoryStore()
        self.pointer = None
        self.fresh = {b"streamer/play-events/0": b"%d" % NOW_MS}
        self.trouble = None
        self.n_answers_left = None
        self.n_keys_asked = []

    def read_values(self, keys):
        self.n_keys_asked.append(len(keys))
        self._answer()
        return [self.store.values.get(key) for key in keys]

    def read_fresh(self):
        self._answer()
        return self.fresh

    def read_pointer(self, variant):
        assert variant == "default"
        self._answer()
        return self.pointer

    def close(self):
        self.trouble = "closed"

    def _answer(self):
        if self.n_answers_left is not None:
            self.n_answers_left -= 1
            if self.n_answers_left < 0:
                self.trouble = "timeout"
        if self.trouble:
            raise StoreUnavailable("Redis: no answer", kind=self.trouble)


class World:
    """A worker's writes, a reader, and one clock for both."""

    def __init__(self, directory):
        self.directory = directory
        self.source = FakeSource()
        self.live = None
        self.now_ms = NOW_MS + 1000
        self.threads = []

    def publish(self, model):
        folder = self.directory / "new"
        model_id = write_model(
            folder,
            params=PARAMS,
            item_ids=model.item_ids,
            item_factors=model.item_factors,
            popularity=model.popularity,
        )
        folder.rename(self.directory / model_id)
        generation = self.live.generation + 1 if self.live else 1
        model = load_model(self.directory / model_id)
        self.live = LiveModel("default", generation, model, RecencyFoldIn())
        self.source.pointer = Pointer(model_id, generation)

    def learn(self, *events, live="the live one"):
        decoded = Decoder().decode(records(*events))
        store = self.source.store
        histories, digests, _ = decode(store.read_histories(decoded.user_ids))
        known = Known(histories, digests, {})
        live = self.live if live == "the live one" else live
        lives = [] if live is None else [live]
        feature_format = FeatureFormat(FeatureDtype.F32, self.now_ms)
        store.write(plan(decoded.user_ids, known, decoded.arrived, lives, feature_format).writes)

    def reader(self, *, with_models=True, **settings):
        reader = FeatureReader(
            self.source,
            "default",
            self.directory if with_models else None,
            ReaderSettings(**{"model_interval_seconds": 1e6, **settings}),
            lambda: self.now_ms / 1000,
            lambda: self.now_ms / 1000,
        )
        self.threads.append(reader)
        return reader.start()

    def break_features(self, user_id):
        self.source.store.values[features_key("default", user_id)] = b"SF\x09 of a later version"


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.publish(item_model())
    yield world
    for reader in world.threads:
        reader.close()


def look_again(reader):
    """Do what the reader's threads do between two requests."""
    for poller in reader._pollers:
        poller._look()


def angle(first, second):
    """1 for the same direction."""
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


# --- the five statuses ---------------------------------------------------------------------------


def test_a_viewer_whose_events_are_applied_is_fresh_with_age_and_provenance(world):
    world.learn(event("u", "title-3"), event("u", "title-9", NOW_MS - 60_000))
    read = world.reader().get("u")
    assert read.status is Status.FRESH
    assert read.age_seconds == 1.0
    assert (read.as_of_ms, read.written_ms) == (NOW_MS, world.now_ms)
    assert (read.model_id, read.generation) == (world.live.model.model_id, 1)
    assert read.recent.dtype == read.lasting.dtype == np.float32
    assert read.recent.shape == read.lasting.shape == (world.live.model.n_factors,)
    assert read.error is None


def test_the_vectors_are_those_that_the_worker_folded_in(world):
    world.learn(event("u", "title-3"), event("u", "title-9", NOW_MS - 60_000))
    read = world.reader().get("u")
    histories, _, _ = decode(world.source.store.read_histories(["u"]))
    expected = RecencyFoldIn()(histories, world.live.model).vectors[0]
    np.testing.assert_array_equal([read.recent, read.lasting], expected)


def test_a_viewer_is_stale_when_the_oldest_partition_is_too_old(world):
    world.learn(event("u", "title-3"))
    world.source.fresh[b"streamer/browse-events/3"] = b"%d" % (world.now_ms - 10_001)
    read = world.reader().get("u")
    assert (read.status, read.age_seconds) == (Status.STALE, 10.001)
    assert read.vector(NOW_MS) is not None


def test_a_viewer_who_is_merely_idle_is_not_stale(world):
    world.learn(event("u", "title-3"))
    world.now_ms += 40 * 86_400_000
    world.source.fresh = {b"streamer/play-events/0": b"%d" % (world.now_ms - 500)}
    read = world.reader().get("u")
    assert (read.status, read.age_seconds) == (Status.FRESH, 0.5)


def test_what_nobody_vouches_for_is_stale_without_an_age(world):
    world.learn(event("u", "title-3"))
    read = world.reader(group_id="another").get("u")
    assert (read.status, read.age_seconds) == (Status.STALE, None)


def test_the_limit_of_staleness_is_a_setting(world):
    world.learn(event("u", "title-3"))
    assert world.reader(stale_after_seconds=0.5).get("u").status is Status.STALE


def test_features_of_another_model_are_folded_in_again_with_the_readers_own(world):
    world.learn(event("u", "title-3"))
    world.publish(item_model(seed=4))
    read = world.reader().get("u")
    histories, _, _ = decode(world.source.store.read_histories(["u"]))
    expected = RecencyFoldIn()(histories, world.live.model).vectors[0]
    assert read.status is Status.REFOLDED
    assert (read.model_id, read.generation) == (world.live.model.model_id, 2)
    assert (read.as_of_ms, read.written_ms) == (NOW_MS, None)
    np.testing.assert_array_equal([read.recent, read.lasting], expected)
    assert read.history.counts[0] == 1


def test_features_of_a_model_that_the_reader_has_not_loaded_yet_are_not_used(world):
    reader = world.reader()
    old = world.live.model
    world.publish(item_model(n_factors=5))
    world.learn(event("u", "title-3"))
    read = reader.get("u")
    assert (read.status, read.model_id) == (Status.REFOLDED, old.model_id)
    assert read.recent.shape == (old.n_factors,)
    look_again(reader)
    assert (reader.get("u").status, reader.get("u").generation) == (Status.FRESH, 2)


def test_a_history_without_features_is_folded_in(world):
    world.learn(event("u", "title-3"), live=None)
    assert world.reader().get("u").status is Status.REFOLDED


def test_broken_features_are_folded_in_again_and_the_read_says_why(world):
    world.learn(event("u", "title-3"))
    world.break_features("u")
    read = world.reader().get("u")
    assert (read.status, read.error) == (Status.REFOLDED, "broken_features")


def test_an_unknown_viewer_is_cold_and_has_no_vector(world):
    read = world.reader().get("nobody")
    assert read.status is Status.COLD
    assert read.recent is read.lasting is read.vector(NOW_MS) is None
    assert read.model_id == world.live.model.model_id
    assert read.age_seconds == 1.0


def test_a_viewer_of_unknown_titles_alone_is_cold_and_has_no_vector(world):
    world.learn(event("u", "too new a title"))
    read = world.reader().get("u")
    assert read.status is Status.COLD
    assert read.vectors is None
    assert read.as_of_ms == NOW_MS


def test_folding_in_again_finds_nothing_in_unknown_titles_alone_either(world):
    world.learn(event("u", "too new a title"), live=None)
    read = world.reader().get("u")
    assert (read.status, read.vectors, read.as_of_ms) == (Status.COLD, None, NOW_MS)


def test_a_cold_viewer_gets_what_is_popular(world):
    answer = world.reader().top_k("nobody", k=3)
    assert (answer.status, answer.item_ids) == (Status.COLD, ("title-0", "title-1", "title-2"))


def test_a_broken_history_reads_as_none_and_takes_no_good_features_away(world):
    world.learn(event("u", "title-0"))
    world.source.store.values[history_key("u")] = b"SH\x02 of a later version"
    reader = world.reader()
    read = reader.get("u", check_history=True)
    assert (read.status, read.error) == (Status.FRESH, "broken_history")
    assert reader.top_k("u").status is Status.FRESH
    world.break_features("u")
    read = reader.get("u")
    assert (read.status, read.error) == (Status.COLD, "broken_history")


def test_without_redis_a_read_is_degraded_and_titles_are_the_popular_ones(world):
    world.learn(event("u", "title-3"))
    reader = world.reader()
    world.source.trouble = "timeout"
    read = reader.get("u")
    assert (read.status, read.error, read.vectors) == (Status.DEGRADED, "timeout", None)
    assert read.age_seconds == 1.0
    answer = reader.top_k("u", k=2)
    assert (answer.status, answer.item_ids) == (Status.DEGRADED, ("title-0", "title-1"))
    assert reader.score(read, ["title-39"]).tolist() == [1.0]


def test_a_reader_that_starts_without_redis_is_degraded_until_it_answers(world):
    world.learn(event("u", "title-3"))
    world.source.trouble = "connection"
    reader = world.reader()
    assert reader.model is None
    answer = reader.top_k("u")
    assert (answer.status, answer.item_ids) == (Status.DEGRADED, ())
    world.source.trouble = None
    world.now_ms += 2000
    look_again(reader)
    assert reader.get("u").status is Status.FRESH
    assert reader.top_k("u", k=4).item_ids != ()


def test_only_those_whose_histories_could_not_be_read_are_degraded(world):
    world.learn(event("u", "title-3"))
    world.learn(event("v", "title-3"), live=None)
    reader = world.reader()
    world.source.n_answers_left = 1
    fresh, degraded = reader.get_many(["u", "v"])
    assert fresh.status is Status.FRESH
    assert (degraded.status, degraded.error) == (Status.DEGRADED, "timeout")
    assert degraded.vectors is None


@pytest.mark.parametrize(
    ("is_down", "is_unknown", "is_other_model", "is_old", "told"),
    [
        (True, True, True, True, Status.DEGRADED),
        (False, True, True, True, Status.COLD),
        (False, False, True, True, Status.REFOLDED),
        (False, False, False, True, Status.STALE),
        (False, False, False, False, Status.FRESH),
    ],
)
def test_of_several_statuses_the_worst_is_told_and_the_age_always(
    world, is_down, is_unknown, is_other_model, is_old, told
):
    if not is_unknown:
        world.learn(event("u", "title-3"))
    if is_other_model:
        world.publish(item_model(seed=4))
    if is_old:
        world.now_ms += 60_000
    reader = world.reader()
    world.source.trouble = "timeout" if is_down else None
    read = reader.get("u")
    assert (read.status, read.age_seconds) == (told, 61.0 if is_old else 1.0)


# --- never across models -------------------------------------------------------------------------


def axis_model(n_factors, axis_of_title):
    """A model in which every title lies on one axis."""
    item_factors = np.zeros((len(axis_of_title), n_factors), np.float32)
    item_factors[np.arange(len(axis_of_title)), list(axis_of_title.values())] = 1.0
    model = item_model(n_items=len(axis_of_title), n_factors=n_factors)
    return type(model).of(
        1, PARAMS, list(axis_of_title), item_factors, np.ones(len(axis_of_title), np.float32)
    )


@pytest.mark.parametrize("n_factors", [3, 4])
def test_no_vector_of_one_model_meets_items_of_another(tmp_path, n_factors):
    # In the second model the axes are turned by one: a product across models would rank the
    # titles of the next taste first, with the greatest possible score.
    tastes = {"crime-1": 0, "crime-2": 0, "comedy-1": 1, "comedy-2": 1, "space-1": 2, "space-2": 2}
    world = World(tmp_path)
    world.publish(axis_model(3, tastes))
    world.learn(event("u", "crime-1"))
    reader = world.reader()
    early = reader.get("u", check_history=True)
    world.publish(axis_model(n_factors, {title: (n + 1) % 3 for title, n in tastes.items()}))
    look_again(reader)
    late = reader.get("u", check_history=True)
    assert (early.status, late.status) == (Status.FRESH, Status.REFOLDED)
    assert angle(late.recent[:3], np.roll(early.recent, 1)) > 0.99
    for read in (early, late):  # the early one goes on with the model it was made for
        answer = reader.top_k(read, k=6)
        assert answer.model_id == read.model_id
        assert answer.item_ids[0] == "crime-2"
        np.testing.assert_allclose(answer.scores, [1, 0, 0, 0, 0], atol=1e-6)
    for answer in reader.top_k_many([early, late, "u"], k=1):
        assert answer.item_ids == ("crime-2",)
    reader.close()


def test_features_whose_id_fits_and_whose_size_does_not_are_not_used(world):
    world.learn(event("u", "title-3"))
    reader = world.reader()
    narrow = item_model(n_factors=4)
    impostor = type(narrow).of(
        world.live.model.model_id,
        PARAMS,
        narrow.item_ids,
        narrow.item_factors,
        narrow.popularity,
    )
    world.learn(event("u", "title-5"), live=LiveModel("default", 1, impostor, RecencyFoldIn()))
    read = reader.get("u")
    assert (read.status, read.recent.shape) == (Status.REFOLDED, (8,))


# --- features that are behind their history ------------------------------------------------------


def test_features_behind_their_history_are_folded_in_again_where_that_is_checked(world):
    world.learn(event("u", "title-3"))
    world.learn(event("u", "title-7", NOW_MS + 5), live=None)
    reader = world.reader()
    assert reader.get("u").status is Status.FRESH
    checked = reader.get("u", check_history=True)
    assert (checked.status, checked.as_of_ms) == (Status.REFOLDED, NOW_MS + 5)
    assert "title-7" not in reader.top_k("u", k=40).item_ids


def test_features_without_a_history_are_not_served_where_that_is_checked(world):
    world.learn(event("u", "title-3"))
    world.learn(event("v", "title-3"))
    del world.source.store.values[history_key("u")]
    forgotten = event("v", None, NOW_MS + 5, "forget")
    leftover = world.source.store.values[features_key("default", "v")]
    world.learn(forgotten)
    world.source.store.values[features_key("default", "v")] = leftover
    reader = world.reader()
    assert [read.status for read in reader.get_many(["u", "v"], check_history=True)] == [
        Status.COLD,
        Status.COLD,
    ]
    assert [answer.status for answer in reader.top_k_many(["u", "v"])] == [Status.COLD] * 2


class RejectingFoldIn:
    name = "rejecting"

    def __call__(self, histories, model):
        n_users = len(histories)
        return UserFactors(
            np.full((n_users, 2, model.n_factors), np.nan, np.float32),
            np.ones(n_users, np.int64),
            np.ones(n_users, bool),
        )


def test_a_solve_that_fails_leaves_what_is_stored_and_says_that_it_is_behind(world):
    world.learn(event("u", "title-3"))
    world.learn(event("u", "title-7", NOW_MS + 5), live=None)
    world.learn(event("v", "title-7"), live=None)
    reader = world.reader(learner=RejectingFoldIn())
    behind, cold = reader.get_many(["u", "v"], check_history=True)
    assert (behind.status, behind.error) == (Status.STALE, "fold_rejected")
    assert np.isfinite(behind.vectors).all()
    assert (cold.status, cold.error, cold.vectors) == (Status.COLD, "fold_rejected", None)


def failing_reader(world, learner):
    """Somebody with features that are behind, somebody without any, somebody well."""
    world.learn(event("u", "title-3"))
    world.learn(event("u", BAD_ITEM, NOW_MS + 5), live=None)
    world.learn(event("v", BAD_ITEM), live=None)
    world.learn(event("w", "title-3"))
    return world.reader(learner=learner)


@pytest.mark.parametrize("learner", [ShyOfOneItem(), Constant(np.nan), Constant(1.0, n_vectors=3)])
def test_a_learner_that_fails_harms_those_alone_who_need_it_and_is_logged_once(
    world, caplog, learner
):
    reader = failing_reader(world, learner)
    for _ in range(2):
        behind, cold, fresh = reader.get_many(["u", "v", "w"], check_history=True)
        assert (behind.status, behind.error) == (Status.STALE, "learner_failed")
        assert np.isfinite(behind.vectors).all()
        assert (cold.status, cold.error, cold.vectors) == (Status.COLD, "learner_failed", None)
        assert (fresh.status, fresh.error) == (Status.FRESH, None)
    assert reader.get("v").error == "learner_failed"
    assert len(reader.top_k("v", 3).item_ids) == 3  # what is popular
    [said] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "variant default cannot be folded in: learner" in said.message
    assert said.exc_info is not None


class RaisesAtOnce:
    name = "raises_at_once"

    def __call__(self, histories, model):
        raise RuntimeError("not today")


def test_a_learner_that_fails_on_nobody_does_not_keep_the_model_from_being_served(world):
    world.learn(event("u", "title-3"))
    reader = world.reader(learner=RaisesAtOnce())
    assert reader.get("u").status is Status.FRESH
    assert reader.model.model_id == world.live.model.model_id


@pytest.mark.parametrize("name", ["flat_fold_in", "sgd_replay", "mean_of_items"])
def test_a_reader_folds_in_by_the_learner_that_it_is_given_by_name(world, name):
    world.learn(event("u", "title-3"), event("u", "title-9"), live=None)
    read = world.reader(learner=name).get("u")
    histories = decode([world.source.store.values[history_key("u")]])[0]
    expected = load_learner(name)(histories, world.live.model).vectors[0]
    assert read.status is Status.REFOLDED
    np.testing.assert_array_equal(read.vectors, np.repeat(expected, 2, axis=0))


def test_a_learner_that_is_not_known_is_refused(world):
    with pytest.raises(ConfigError, match="'flat_foldin' is not known, did you mean 'flat_fold_i"):
        world.reader(learner="flat_foldin")


# --- without a model -----------------------------------------------------------------------------


def test_without_a_models_directory_vectors_are_read_by_their_features_alone(world):
    world.learn(event("u", "title-3"))
    world.learn(event("v", "title-3"), live=None)
    reader = world.reader(with_models=False)
    read = reader.get("u")
    assert (read.status, read.model_id) == (Status.FRESH, world.live.model.model_id)
    assert read.vector(NOW_MS).shape == (8,)
    assert reader.get("v").status is Status.COLD
    answer = reader.top_k("u")
    assert (answer.status, answer.error, answer.item_ids) == (Status.DEGRADED, "no_model", ())
    assert reader.score(read, ["title-1"]).tolist() == [-np.inf]


def test_without_a_model_features_behind_their_history_are_stale_where_that_is_checked(world):
    world.learn(event("u", "title-3"))
    world.learn(event("u", "title-7", NOW_MS + 5), live=None)
    reader = world.reader(with_models=False)
    read = reader.get("u", check_history=True)
    assert (read.status, read.error) == (Status.STALE, "behind_history")


# --- what it costs -------------------------------------------------------------------------------


def test_histories_are_asked_for_only_where_features_cannot_be_used(world):
    world.learn(event("u", "title-3"), event("v", "title-3"))
    world.learn(event("w", "title-3"), live=None)
    reader = world.reader()
    reader.get_many(["u", "v"])
    assert world.source.n_keys_asked == [2]
    reader.get_many(["u", "w", "v", "nobody"])
    assert world.source.n_keys_asked == [2, 4, 2]


def test_titles_of_user_ids_cost_one_command_and_those_of_reads_one_more(world):
    world.learn(event("u", "title-3"), event("v", "title-3"))
    reader = world.reader()
    reader.top_k_many(["u", "v"])
    assert world.source.n_keys_asked == [4]
    reads = reader.get_many(["u", "v"])
    reader.top_k_many(reads)
    assert world.source.n_keys_asked == [4, 2, 2]
    reader.top_k_many(reads, exclude_seen=False)
    reader.top_k_many(reader.get_many(["u", "v"], check_history=True))
    assert world.source.n_keys_asked == [4, 2, 2, 4]


def test_a_dead_redis_is_asked_once_a_second_and_never_twice_by_one_request(world):
    world.learn(event("u", "title-3"))
    reader = world.reader()
    world.source.trouble = "timeout"
    errors = [reader.get("u").error for _ in range(100)]
    assert errors == ["timeout", *["circuit_open"] * 99]
    assert len(world.source.n_keys_asked) == 1
    world.now_ms += 1000
    reader.top_k("u")
    reader.top_k_many(["u"] * 50)
    assert len(world.source.n_keys_asked) == 2
    world.now_ms += 1000
    world.source.trouble = None
    assert [reader.get("u").status for _ in range(2)] == [Status.FRESH] * 2


def test_a_degraded_read_is_not_asked_about_again(world):
    world.learn(event("u", "title-3"))
    reader = world.reader()
    world.source.trouble = "timeout"
    read = reader.get("u")
    world.source.trouble = None
    world.now_ms += 2000
    assert reader.top_k(read).status is Status.DEGRADED
    assert len(world.source.n_keys_asked) == 1


def test_many_users_are_read_in_commands_of_bounded_size(world, monkeypatch):
    monkeypatch.setattr("streamer.reader.reading.USERS_AT_ONCE", 3)
    world.learn(*(event(f"u{n}", "title-3") for n in range(7)))
    reads = world.reader().get_many([f"u{n}" for n in range(8)])
    assert [read.user_id for read in reads] == [f"u{n}" for n in range(8)]
    assert [read.status for read in reads] == [Status.FRESH] * 7 + [Status.COLD]
    assert world.source.n_keys_asked == [3, 3, 2, 1]


# --- titles --------------------------------------------------------------------------------------


def test_seen_and_hidden_titles_are_left_out(world):
    world.learn(
        event("u", "title-3"),
        event("u", "title-5", event_type="thumb_down"),
        event("u", "title-7", event_type="detail_view"),
    )
    reader = world.reader()
    shown = set(reader.top_k("u", k=40).item_ids)
    assert {f"title-{n}" for n in range(40)} - shown == {"title-3", "title-5"}
    assert len(reader.top_k("u", k=40, exclude_seen=False).item_ids) == 40
    read = reader.get("u")
    assert set(reader.top_k(read, k=40).item_ids) == shown


def test_when_the_history_cannot_be_read_titles_are_by_taste_and_degraded(world):
    world.learn(event("u", "title-3"))
    reader = world.reader()
    read = reader.get("u")
    world.source.trouble = "timeout"
    answer = reader.top_k(read, k=40)
    assert (answer.status, answer.error, len(answer.item_ids)) == (Status.DEGRADED, "timeout", 40)
    assert answer.item_ids == reader.top_k(read, k=40, exclude_seen=False).item_ids


def test_now_is_the_readers_clock_unless_it_is_given(world):
    world.learn(*(event("u", f"title-{n}", NOW_MS - 1000 * n) for n in range(20)))
    reader = world.reader()
    read = reader.get("u", check_history=True)
    page = {f"row {n}": [f"title-{2 * n}", f"title-{2 * n + 1}"] for n in range(20)}
    for later_ms in (0, 10**8):
        world.now_ms = NOW_MS + later_ms
        np.testing.assert_array_equal(
            reader.score(read, ["title-1"]), reader.score(read, ["title-1"], world.now_ms)
        )
        assert reader.top_k(read).item_ids == reader.top_k(read, now_ms=world.now_ms).item_ids
        assert reader.rank_rows(read, page) == reader.rank_rows(read, page, world.now_ms)
    now, then = (reader.score(read, ["title-1"], NOW_MS + idle)[0] for idle in (0, 10**8))
    assert now != then


# --- edges ---------------------------------------------------------------------------------------


def test_an_id_that_no_event_could_carry_is_cold_and_harms_no_other(world):
    world.learn(event("u", "title-3"))
    reader = world.reader()
    fresh, odd, empty = reader.get_many(["u", "\ud800", ""])
    assert [fresh.status, odd.status, empty.status] == [Status.FRESH, Status.COLD, Status.COLD]
    assert odd.error == "not_an_id"
    assert reader.top_k("\ud800", k=1).item_ids == ("title-0",)
    assert reader.top_k(odd, k=1).item_ids == ("title-0",)


def test_nobody_is_read_from_an_empty_list(world):
    reader = world.reader()
    assert reader.get_many([]) == reader.top_k_many([]) == []
    assert world.source.n_keys_asked == []


def test_a_variant_that_cannot_be_named_so_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="variant"):
        FeatureReader(FakeSource(), "No Such!", tmp_path)


def test_a_url_that_cannot_be_understood_is_refused_at_once():
    with pytest.raises(ConfigError, match="url"):
        FeatureReader.connect("http://127.0.0.1")


def test_a_closed_reader_leaves_no_thread_behind_and_may_be_closed_twice(world):
    def threads():
        return {thread.name for thread in threading.enumerate()}

    before = threads()
    with world.reader() as reader:
        assert threads() - before == {"reader-fresh", "reader-model"}
    assert threads() == before
    reader.close()


def test_threads_may_share_a_reader(world):
    world.learn(*(event(f"u{n}", f"title-{n}") for n in range(20)))
    reader = world.reader()
    alone = reader.top_k_many([f"u{n}" for n in range(20)])
    found = {}

    def ask(n):
        found[n] = [reader.top_k(f"u{n}") for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, expected in enumerate(alone):
        assert {answer.item_ids for answer in found[n]} == {expected.item_ids}
