"""Follows the pointers of all variants: a thread that loads the live models beside the loop.

The loop takes `current` between two batches, so a batch is folded in with one model of each
variant throughout. A learner that fails takes its variant out of service: there is no live model of
it then, as before the first publish, until another generation is published.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from streamer.errors import LearnerError, ModelError, StoreUnavailable
from streamer.factors import BUILT_INS, ItemModel, Learner, ask, check_learner
from streamer.history import HistoryBatch
from streamer.metrics import WorkerMetrics
from streamer.models import Pointer, load_model
from streamer.pipeline.step import LearnerFailure, LiveModel

RETRY_SECONDS: Final = 5.0
"""A refused model is tried again after this time: its folder may have arrived."""


class LiveModels:
    """Keeps the live models of all variants at hand."""

    def __init__(
        self,
        read_pointer: Callable[[str], Pointer | None],
        directory: Path,
        learners: Mapping[str, Learner],
        metrics: WorkerMetrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Keep the parts; `start` begins to follow.

        Args:
            read_pointer: Asks the store for a variant's; called on the thread that looks.
            directory: Where published models are.
            learners: What each variant folds in with, by its name.
            metrics: The worker's.
            log: The worker's.
        """
        self._directory = directory
        self._followers = {
            variant: LiveModelFollower(
                partial(read_pointer, variant), self._load, variant, learner, metrics, log
            )
            for variant, learner in learners.items()
        }
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def current(self) -> list[LiveModel]:
        """Return the live model of every variant in service, in the order they were given."""
        lives = (follower.current() for follower in self._followers.values())
        return [live for live in lives if live is not None]

    @property
    def out_of_service(self) -> frozenset[str]:
        """The variants whose learner failed, if nothing newer took their place."""
        return frozenset(
            variant for variant, each in self._followers.items() if each.is_out_of_service
        )

    def take_out(self, failure: LearnerFailure) -> None:
        """Take a variant out of service until another generation is published; any thread."""
        self._followers[failure.live.variant].take_out(failure)

    def look(self) -> None:
        """Follow every pointer once."""
        for follower in self._followers.values():
            follower.look()

    def start(self, interval_seconds: float) -> None:
        """Look once, on this thread, then keep looking on one of our own."""
        self.look()
        self._thread = threading.Thread(
            target=self._run, args=(interval_seconds,), name="live-models", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _run(self, interval_seconds: float) -> None:
        while not self._stopping.wait(interval_seconds):
            self.look()

    def _load(self, pointer: Pointer) -> ItemModel:
        """Return the model of a pointer: the same object for variants that share one."""
        for live in self.current():
            if f"{live.model.model_id:016x}" == pointer.model_id:
                return live.model
        model = load_model(self._directory / pointer.model_id)
        if f"{model.model_id:016x}" != pointer.model_id:
            raise ModelError(
                f"{pointer.model_id}: its manifest says model_id {model.model_id:016x}; "
                "publish it again"
            )
        return model


class LiveModelFollower:
    """Keeps the live model of one variant at hand."""

    def __init__(
        self,
        read_pointer: Callable[[], Pointer | None],
        load: Callable[[Pointer], ItemModel],
        variant: str,
        learner: Learner,
        metrics: WorkerMetrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Keep the parts.

        Args:
            read_pointer: Asks the store; called by `look`.
            load: Returns the model that a pointer names, or raises ModelError.
            variant: Which pointer this is.
            learner: What the variant folds in with.
            metrics: The worker's.
            log: The worker's.
        """
        self._read_pointer = read_pointer
        self._load_model = load
        self._variant = variant
        self._learner = learner
        self._metrics = metrics
        self._log = log
        self._current: LiveModel | None = None
        self._lock = threading.Lock()
        """Of `_current` and `_failed`, which the loop's thread may change too."""
        self._failed: Pointer | None = None
        self._refused: Pointer | None = None
        self._try_again_at = 0.0
        self._last_refusal = ""
        self._has_said_missing = False

    def current(self) -> LiveModel | None:
        """Return the live model, or None while nothing usable is published."""
        return self._current

    @property
    def is_out_of_service(self) -> bool:
        """Whether the learner failed and nothing newer took its place."""
        return self._failed is not None and self._current is None

    def take_out(self, failure: LearnerFailure) -> None:
        """Take the variant out of service until another generation is published; any thread."""
        live = failure.live
        with self._lock:
            if self._current is not live:
                return  # another one has taken its place already
            self._current = None
            self._failed = Pointer(f"{live.model.model_id:016x}", live.generation)
        self._metrics.model_info.remove(self._variant, f"{live.model.model_id:016x}")
        self._say_failed(live.generation, failure.error)

    def look(self) -> None:
        """Follow the pointer once; whatever is wrong leaves the present model live.

        The time of the last look is a metric: a thread that hangs or has died shows there alone.
        """
        self._look()
        self._metrics.model_checked.labels(self._variant).set_to_current_time()

    def _look(self) -> None:
        try:
            pointer = self._read_pointer()
            if pointer is None:
                self._say_missing()
            elif not self._is_settled(pointer) and not self._is_too_soon(pointer):
                self._load(pointer)
        except StoreUnavailable:
            return  # the loop notices that too, and says so
        except ModelError as error:
            self._refuse(None, error)
        except MemoryError:
            self._refuse(None, ModelError("not enough memory to load the live model"))

    def _is_too_soon(self, pointer: Pointer) -> bool:
        """A refused model is tried again, but not at every look: loading it costs time."""
        return pointer == self._refused and time.monotonic() < self._try_again_at

    def _is_settled(self, pointer: Pointer) -> bool:
        """Say whether this very publish is live, or was one that the learner failed."""
        live, failed = self._current, self._failed
        here = None if live is None else (f"{live.model.model_id:016x}", live.generation)
        there = None if failed is None else (failed.model_id, failed.generation)
        return (pointer.model_id, pointer.generation) in {here, there}

    def _load(self, pointer: Pointer) -> None:
        try:
            model = self._load_model(pointer)
        except ModelError as error:
            self._refuse(pointer, error)
            return
        self._last_refusal = ""
        try:
            # What is derived from a model at its first use is derived here, not between batches.
            ask(self._learner, HistoryBatch.empty(1), model)
            if self._learner.name not in BUILT_INS:
                check_learner(self._learner, model)
        except LearnerError as error:
            with self._lock:
                self._failed = pointer
            self._metrics.learner_failures.labels(self._variant, error.reason).inc()
            self._say_failed(pointer.generation, error)
            return
        # First the metrics: the loop may take the variant out of service again at once.
        self._metrics.model_info.labels(self._variant, pointer.model_id).set(1)
        self._metrics.variant_in_service.labels(self._variant).set(1)
        with self._lock:
            before = self._current
            self._current = LiveModel(self._variant, pointer.generation, model, self._learner)
            self._failed = None
        if before is not None and before.model is not model:
            self._metrics.model_info.remove(self._variant, f"{before.model.model_id:016x}")
        self._metrics.model_loaded.labels(self._variant).set_to_current_time()
        self._log.info(
            "model_loaded",
            variant=self._variant,
            model_id=pointer.model_id,
            generation=pointer.generation,
            n_items=model.n_items,
            n_factors=model.n_factors,
        )

    def _say_failed(self, generation: int, error: LearnerError) -> None:
        """Say loudly, once a publish, that a learner failed, and what that means."""
        live = self._current
        self._metrics.variant_in_service.labels(self._variant).set(0 if live is None else 1)
        self._log.error(
            "learner_failed",
            variant=self._variant,
            learner=self._learner.name,
            generation=generation,
            error=str(error),
            effect="histories are kept, features of the variant are not replaced"
            if live is None
            else f"generation {live.generation} stays live",
            remedy="mend the learner and restart, or publish another model",
            exc_info=error,
        )

    def _refuse(self, pointer: Pointer | None, error: ModelError) -> None:
        if str(error) != self._last_refusal:
            self._last_refusal = str(error)
            self._metrics.model_errors.labels(self._variant).inc()
            self._log.error("model_refused", variant=self._variant, error=str(error))
        self._refused = pointer
        self._try_again_at = time.monotonic() + RETRY_SECONDS

    def _say_missing(self) -> None:
        if not self._has_said_missing:
            self._has_said_missing = True
            self._log.warning(
                "model_missing",
                variant=self._variant,
                remedy="histories are kept; run `streamer model publish DIR` to fold them in",
            )
