import shutil
import time

import numpy as np
import pytest
from own_learners import Constant, Sound
from unit.test_runtime_fakes import FakeClock, capture_log

from streamer.errors import LearnerError, ModelError, StoreUnavailable
from streamer.factors import FoldInParams, RecencyFoldIn
from streamer.metrics import WorkerMetrics
from streamer.models import Pointer, write_model
from streamer.pipeline.step import LearnerFailure
from streamer.runtime.live_models import RETRY_SECONDS, LiveModels


class Bench:
    """A follower whose pointer a test sets; an exception is raised instead of returned."""

    def __init__(self, directory, learner=None):
        self.directory = directory
        self.pointer = None
        self.metrics = WorkerMetrics(["play-events"], ["default"])
        self.log, self.said = capture_log()
        self.models = LiveModels(
            self._read_pointer,
            directory,
            {"default": learner or RecencyFoldIn()},
            self.metrics,
            self.log,
        )

    def current(self):
        """Return what is live, None for nothing."""
        lives = self.models.current()
        return lives[0] if lives else None

    def _read_pointer(self, variant):
        assert variant == "default"
        if isinstance(self.pointer, Exception):
            raise self.pointer
        return self.pointer

    def install(self, seed):
        """Write a model to where publishing puts it; return its id."""
        staging = self.directory / f"staging{seed}"
        model_id = write_model(
            staging,
            params=FoldInParams(alpha=2.0, regularization=0.5),
            item_ids=[f"title-{number}" for number in range(6)],
            item_factors=np.random.default_rng(seed).normal(size=(6, 3)).astype(np.float32),
            popularity=np.ones(6, np.float32),
        )
        staging.rename(self.directory / model_id)
        return model_id

    def live(self):
        """Return (model id, generation) of the live model."""
        live = self.current()
        return live and (f"{live.model.model_id:016x}", live.generation)

    def info(self):
        return {
            sample.labels["model_id"]
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "streamer_model_info" and sample.value == 1
        }

    def n_refused(self):
        return self.metrics.registry.get_sample_value(
            "streamer_model_errors_total", {"variant": "default"}
        )

    def is_in_service(self):
        return self.metrics.registry.get_sample_value(
            "streamer_variant_in_service", {"variant": "default"}
        )

    def n_failed(self, reason):
        return self.metrics.registry.get_sample_value(
            "streamer_learner_failures_total", {"variant": "default", "reason": reason}
        )

    def publish(self, seed, generation):
        """Install a model and look at its pointer."""
        path = self.directory / f"seed{seed}"
        model_id = path.read_text() if path.exists() else self.install(seed)
        path.write_text(model_id)
        self.pointer = Pointer(model_id, generation)
        self.models.look()
        return model_id

    def events_said(self):
        return [entry["event"] for entry in self.said]


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr("streamer.runtime.live_models.time", clock)
    return clock


@pytest.fixture
def bench(tmp_path, clock):
    return Bench(tmp_path)


def test_before_the_first_publish_there_is_no_model_and_that_is_said_once(bench):
    for _ in range(3):
        bench.models.look()
    assert bench.current() is None
    assert bench.events_said() == ["model_missing"]


def test_a_published_model_is_live_after_one_look(bench):
    model_id = bench.install(1)
    bench.pointer = Pointer(model_id, 1)
    bench.models.look()
    assert bench.live() == (model_id, 1)
    assert bench.info() == {model_id}
    assert bench.events_said() == ["model_loaded"]
    current = bench.current()
    bench.models.look()
    assert bench.current() is current


def test_the_next_model_takes_its_place_and_so_does_a_roll_back(bench):
    first, second = bench.install(1), bench.install(2)
    for pointer in (Pointer(first, 1), Pointer(second, 2, first), Pointer(first, 3, second)):
        bench.pointer = pointer
        bench.models.look()
        assert bench.live() == (pointer.model_id, pointer.generation)
        assert bench.info() == {pointer.model_id}


def test_another_model_under_the_same_generation_is_noticed(bench):
    """A Redis that lost its pointer starts over with generation 1."""
    first, second = bench.install(1), bench.install(2)
    bench.pointer = Pointer(first, 1)
    bench.models.look()
    bench.pointer = Pointer(second, 1)
    bench.models.look()
    assert bench.live() == (second, 1)
    assert bench.info() == {second}


def test_a_pointer_that_vanished_leaves_the_model_live(bench):
    model_id = bench.install(1)
    bench.pointer = Pointer(model_id, 1)
    bench.models.look()
    bench.pointer = None
    bench.models.look()
    assert bench.live() == (model_id, 1)


def test_a_model_that_must_be_refused_leaves_the_present_one_live_and_is_said_once(bench):
    model_id, broken = bench.install(1), bench.install(2)
    (bench.directory / broken / "item_ids.json").write_text("[]")
    bench.pointer = Pointer(model_id, 1)
    bench.models.look()
    bench.pointer = Pointer(broken, 2, model_id)
    for _ in range(3):
        bench.models.look()
    assert bench.live() == (model_id, 1)
    assert bench.n_refused() == 1
    assert bench.events_said() == ["model_loaded", "model_refused"]
    bench.pointer = Pointer(model_id, 3, broken)
    bench.models.look()
    assert bench.live() == (model_id, 3)


def test_a_refusal_is_said_again_when_a_model_was_live_in_between(bench):
    model_id, broken = bench.install(1), bench.install(2)
    (bench.directory / broken / "item_ids.json").write_text("[]")
    for generation, published in enumerate([broken, model_id, broken], 1):
        bench.pointer = Pointer(published, generation)
        bench.models.look()
    assert bench.live() == (model_id, 2)
    assert bench.n_refused() == 2
    assert bench.events_said() == ["model_refused", "model_loaded", "model_refused"]


def test_a_model_whose_folder_comes_later_than_its_pointer_is_loaded_then(bench, clock):
    bench.pointer = Pointer("0123456789abcdef", 1)
    bench.models.look()
    assert bench.current() is None
    model_id = bench.install(1)
    bench.pointer = Pointer(model_id, 1)
    folder = bench.directory / model_id
    folder.rename(bench.directory / "under way")
    bench.models.look()
    (bench.directory / "under way").rename(folder)
    clock.now += RETRY_SECONDS - 0.1
    bench.models.look()
    assert bench.current() is None  # looking costs time; not at every look
    clock.now += 0.2
    bench.models.look()
    assert bench.live() == (model_id, 1)


def test_a_folder_that_holds_another_model_than_its_name_says_is_refused(bench):
    first, second = bench.install(1), bench.install(2)
    shutil.rmtree(bench.directory / first)
    (bench.directory / second).rename(bench.directory / first)
    bench.pointer = Pointer(first, 1)
    bench.models.look()
    assert bench.current() is None
    assert bench.n_refused() == 1


def test_a_pointer_that_cannot_be_read_is_said_once(bench):
    bench.pointer = ModelError("Redis key st:model:default: not JSON")
    for _ in range(5):
        bench.models.look()
    assert bench.events_said() == ["model_refused"]
    assert bench.n_refused() == 1
    model_id = bench.install(1)
    bench.pointer = Pointer(model_id, 1)
    bench.models.look()
    assert bench.live() == (model_id, 1)


def test_a_store_that_does_not_answer_changes_nothing(bench):
    model_id = bench.install(1)
    bench.pointer = Pointer(model_id, 1)
    bench.models.look()
    bench.pointer = StoreUnavailable("down")
    bench.models.look()
    assert bench.live() == (model_id, 1)
    assert bench.events_said() == ["model_loaded"]


def test_a_follower_looks_once_before_it_returns_and_can_be_stopped(bench):
    model_id = bench.install(1)
    bench.pointer = Pointer(model_id, 1)
    bench.models.start(interval_seconds=60)
    assert bench.live() == (model_id, 1)
    bench.models.stop()
    assert not bench.models._thread.is_alive()


def checked(bench):
    return bench.metrics.registry.get_sample_value(
        "streamer_model_checked_timestamp_seconds", {"variant": "default"}
    )


@pytest.mark.parametrize("found", [None, StoreUnavailable("down"), ModelError("not JSON")])
def test_every_look_leaves_its_time_whatever_it_found(bench, found):
    bench.pointer = found
    before = time.time()
    bench.models.look()
    assert before <= checked(bench) <= time.time()


def test_a_look_that_does_not_return_leaves_no_time(bench):
    bench.models.look()
    before = checked(bench)
    bench.pointer = RuntimeError("a defect")  # as good as one that hangs: the thread is lost
    with pytest.raises(RuntimeError):
        bench.models.look()
    assert checked(bench) == before


# --- learners that fail --------------------------------------------------------------------------


def failure(bench, live=None):
    error = LearnerError("learner 'x' raised ZeroDivisionError", "raised")
    return LearnerFailure(live or bench.current(), error)


def test_a_variant_is_in_service_while_it_has_a_usable_model(bench):
    bench.models.look()
    assert bench.is_in_service() == 0
    assert bench.models.out_of_service == frozenset()  # nothing failed, nothing is published
    bench.publish(1, generation=1)
    assert bench.is_in_service() == 1


def test_a_failed_learner_takes_its_variant_out_until_another_generation_is_published(bench):
    model_id = bench.publish(1, generation=1)
    bench.models.take_out(failure(bench))
    for _ in range(3):
        bench.models.look()
    assert bench.current() is None
    assert bench.models.out_of_service == {"default"}
    assert bench.is_in_service() == 0
    assert bench.info() == set()
    said = bench.said[-1]
    assert (said["event"], said["log_level"]) == ("learner_failed", "error")
    assert said["exc_info"].reason == "raised"
    assert bench.events_said() == ["model_loaded", "learner_failed"]
    bench.publish(1, generation=2)  # the same model, rolled back to
    assert bench.live() == (model_id, 2)
    assert bench.models.out_of_service == frozenset()
    assert bench.is_in_service() == 1
    assert bench.info() == {model_id}


def test_a_failure_is_said_once_however_many_batches_had_it(bench):
    bench.publish(1, generation=1)
    failed = failure(bench)
    for _ in range(3):
        bench.models.take_out(failed)
    assert bench.events_said().count("learner_failed") == 1


def test_a_failure_of_a_model_that_was_replaced_meanwhile_changes_nothing(bench):
    bench.publish(1, generation=1)
    late = failure(bench)
    second = bench.publish(2, generation=2)
    bench.models.take_out(late)
    assert bench.live() == (second, 2)
    assert bench.is_in_service() == 1
    assert bench.info() == {second}


def test_a_learner_of_somebodys_own_is_checked_before_it_goes_into_service(tmp_path, clock):
    bench = Bench(tmp_path, Constant(1.0))  # also of users of whom it learned nothing
    for _ in range(3):
        bench.publish(1, generation=1)
    assert bench.current() is None
    assert bench.models.out_of_service == {"default"}
    assert (bench.is_in_service(), bench.n_failed("wrong_form")) == (0, 1)
    [said] = bench.said
    assert "gave a vector to users of whom it learned nothing" in said["error"]
    assert said["effect"] == "histories are kept, features of the variant are not replaced"


def test_a_sound_learner_of_somebodys_own_goes_into_service(tmp_path, clock):
    bench = Bench(tmp_path, Sound())
    model_id = bench.publish(1, generation=1)
    assert bench.live() == (model_id, 1)
    assert bench.events_said() == ["model_loaded"]


def test_a_learner_that_cannot_bear_the_next_model_leaves_the_present_one_live(tmp_path, clock):
    class Greedy(Sound):
        def __call__(self, histories, model):
            assert model.item_factors[0, 0] == first_factor, "another model"
            return super().__call__(histories, model)

    bench = Bench(tmp_path, Greedy())
    first_factor = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)[0, 0]
    model_id = bench.publish(1, generation=1)
    for _ in range(3):
        bench.publish(2, generation=2)
    assert bench.live() == (model_id, 1)
    assert bench.models.out_of_service == frozenset()
    assert (bench.is_in_service(), bench.n_failed("raised")) == (1, 1)
    assert bench.events_said() == ["model_loaded", "learner_failed"]
    assert bench.said[-1]["effect"] == "generation 1 stays live"
    bench.publish(1, generation=3)
    assert bench.live() == (model_id, 3)


class Two:
    """Two variants, whose pointers a test sets."""

    def __init__(self, directory, **learners):
        self.pointers = {}
        self.metrics = WorkerMetrics(["play-events"], list(learners))
        log, self.said = capture_log()
        self.models = LiveModels(self.pointers.get, directory, learners, self.metrics, log)

    def current(self):
        self.models.look()
        return {live.variant: live for live in self.models.current()}


def test_each_variant_follows_its_own_pointer(bench):
    two = Two(bench.directory, default=RecencyFoldIn(), quick=Sound())
    first, second = bench.install(1), bench.install(2)
    assert two.current() == {}
    two.pointers["quick"] = Pointer(second, 4)
    assert list(two.current()) == ["quick"]
    two.pointers["default"] = Pointer(first, 1)
    lives = two.current()
    assert [(name, live.generation) for name, live in lives.items()] == [
        ("default", 1),
        ("quick", 4),
    ]
    assert lives["quick"].learner.name == Sound.name


def test_variants_with_one_model_share_it(bench):
    two = Two(bench.directory, default=RecencyFoldIn(), quick=Sound())
    model_id = bench.install(1)
    two.pointers |= {"default": Pointer(model_id, 1), "quick": Pointer(model_id, 7)}
    lives = two.current()
    assert lives["default"].model is lives["quick"].model


def test_a_learner_that_fails_takes_out_its_own_variant_alone(bench):
    two = Two(bench.directory, default=RecencyFoldIn(), quick=Sound())
    model_id = bench.install(1)
    two.pointers |= {"default": Pointer(model_id, 1), "quick": Pointer(model_id, 7)}
    failed = LearnerFailure(two.current()["quick"], LearnerError("it failed", "raised"))
    two.models.take_out(failed)
    assert list(two.current()) == ["default"]
    assert two.models.out_of_service == {"quick"}
