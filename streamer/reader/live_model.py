"""The item model that a reader serves with: follows the variant's pointer beside the requests."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import LearnerError, ModelError, StoreUnavailable
from streamer.factors import ItemModel, Learner, ask
from streamer.history import HistoryBatch, digests
from streamer.models import Pointer, load_model

log = logging.getLogger("streamer.reader")

RELOAD_AFTER_SECONDS: Final = 5.0
"""A refused model is tried again: its folder may reach this machine later than the pointer."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """An item model with what answers need of it at once.

    Attributes:
        model: The items.
        generation: Of the pointer that named it.
    """

    model: ItemModel
    generation: int

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each item id; some 100 bytes an item, and 20 times faster than its key."""
        return {item_id: row for row, item_id in enumerate(self.model.item_ids)}

    @cached_property
    def by_popularity(self) -> NDArray[np.intp]:
        """All rows, the most popular first; equal ones in row order."""
        return np.argsort(-self.model.popularity, kind="stable")

    def prepare(self, learner: Learner) -> ServedModel:
        """Derive now what the first request would else have to wait for; return itself."""
        _ = self.rows, self.by_popularity
        self.model.rows_of(self.model.item_keys[:1])
        nobody = HistoryBatch.empty(1)
        digests(nobody)  # loads the kernels, or compiles them if this machine never did
        with contextlib.suppress(LearnerError):  # whoever needs it will say so
            ask(learner, nobody, self.model)
        return self


class ModelFollower:
    """Keeps the live model of one variant at hand; one `look` at a time.

    Whatever is wrong with a pointer or with the model it names, the present model stays. A pointer
    that vanished changes nothing either.
    """

    def __init__(
        self,
        directory: Path,
        learner: Learner,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the parts; nothing is read yet.

        Args:
            directory: Where published models are.
            learner: What the variant folds in with.
            monotonic: A clock in seconds.
        """
        self._directory = directory
        self._learner = learner
        self._monotonic = monotonic
        self._current: ServedModel | None = None
        self._complaint = ""
        self._refused: Pointer | None = None
        self._retry_at = 0.0

    def current(self) -> ServedModel | None:
        """Return the live model, or None while nothing usable was found."""
        return self._current

    def look(self, read_pointer: Callable[[], Pointer | None]) -> None:
        """Ask the store, and follow the pointer once."""
        try:
            pointer = read_pointer()
        except StoreUnavailable:
            return  # requests notice that too, and say so
        except ModelError as error:
            self.refuse(error)
            return
        if pointer is not None and self.wants(pointer):
            self.follow(pointer)

    def wants(self, pointer: Pointer) -> bool:
        """Say whether there is something to load; not what was refused a moment ago."""
        is_refused = pointer == self._refused and self._monotonic() < self._retry_at
        return not (is_refused or self._is_current(pointer))

    def follow(self, pointer: Pointer) -> None:
        """Load what the pointer names; takes as long as the model is large."""
        self._refused = pointer  # until it is loaded
        try:
            self._current = self._load(pointer)
        except ModelError as error:
            self.refuse(error)
            return
        self._refused, self._complaint = None, ""
        log.info("model loaded: %s, generation %d", pointer.model_id, pointer.generation)

    def refuse(self, error: ModelError) -> None:
        """Stay with the present model, and say why, once."""
        self._retry_at = self._monotonic() + RELOAD_AFTER_SECONDS
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("model refused, the present one stays: %s", error)

    def _is_current(self, pointer: Pointer) -> bool:
        served = self._current
        return (
            served is not None
            and served.generation == pointer.generation
            and served.model.model_id == int(pointer.model_id, 16)
        )

    def _load(self, pointer: Pointer) -> ServedModel:
        served = self._current
        model_id = int(pointer.model_id, 16)
        if served is not None and served.model.model_id == model_id:
            return ServedModel(served.model, pointer.generation).prepare(self._learner)
        model = load_model(self._directory / pointer.model_id)
        if model.model_id != model_id:
            raise ModelError(
                f"{self._directory / pointer.model_id}: its manifest says {model.model_id:016x}"
            )
        return ServedModel(model, pointer.generation).prepare(self._learner)
