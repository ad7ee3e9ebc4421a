"""What every reader serves and by which settings; asks nobody itself, see `conversation`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ConfigError, ModelError
from streamer.experiments import Assignments
from streamer.factors import (
    DEFAULT_LEARNER,
    ItemModel,
    Learner,
    load_learner,
    load_learners,
)
from streamer.models import pointer_key
from streamer.models.experiment_file import load_catalog
from streamer.reader import ranking
from streamer.reader.circuit import Circuit
from streamer.reader.conversation import Conversation
from streamer.reader.draft import Moment
from streamer.reader.freshness import Freshness
from streamer.reader.live_model import ModelFollower, ServedModel
from streamer.reader.ranking import TopK
from streamer.reader.read import UserRead
from streamer.reader.reading import Reading, with_histories


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How a reader behaves.

    Attributes:
        group_id: The workers' consumer group, whose freshness counts.
        stale_after_seconds: Features are STALE when the oldest partition is older.
        retry_after_seconds: After a failure Redis is asked again no sooner than this.
        model_interval_seconds: Between looks at the live model's pointer.
        fresh_interval_seconds: Between looks at ``st:fresh``.
        learner: Folds in where the stored features cannot be used; the workers' own, by the name
            in their configuration, or an object.
        assignments: Says each viewer's variant; None serves one variant to all.
        imported_lasting: Ask for imported vectors, and use them in place of `lasting`.
    """

    group_id: str = "streamer"
    stale_after_seconds: float = 10.0
    retry_after_seconds: float = 1.0
    model_interval_seconds: float = 0.5
    fresh_interval_seconds: float = 1.0
    learner: Learner | str = DEFAULT_LEARNER
    assignments: Assignments | None = None
    imported_lasting: bool = False


DEFAULTS: Final = ReaderSettings()


def assignments_of(experiments: Path | str | None, variant: str) -> Assignments | None:
    """Return who gets which variant by a file of experiments; raises ConfigError."""
    if experiments is None:
        return None
    return Assignments(load_catalog(Path(experiments)), variant)


class Serving:
    """Features of one variant, or of each viewer's own, as conversations about keys.

    Attributes:
        freshness: To be told what ``st:fresh`` holds.
        followers: By variant, to be told its pointer; none without a directory of models.
        circuit: To be asked before Redis is.
    """

    def __init__(
        self,
        variant: str,
        models: Path | None,
        settings: ReaderSettings,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the parts.

        Raises:
            ConfigError: No variant can have this name, or a learner cannot be loaded.
        """
        try:
            pointer_key(variant)
        except ModelError as error:
            raise ConfigError(str(error)) from error
        self._variant = variant
        self._settings = settings
        self._clock = clock
        self.freshness = Freshness(settings.group_id)
        self.circuit = Circuit(settings.retry_after_seconds, monotonic)
        self.followers: dict[str, ModelFollower] = {}
        self._readings: dict[str, Reading] = {}
        for name, learner in _learners(variant, settings).items():
            self._readings[name] = Reading(name, learner, imported=settings.imported_lasting)
            if models is not None:
                self.followers[name] = ModelFollower(models, learner, monotonic)

    @property
    def model(self) -> ItemModel | None:
        """The live item model of the reader's own variant, or None while none is loaded."""
        served = self._served(self._variant)
        return None if served is None else served.model

    def get_many(
        self, user_ids: Sequence[str], *, check_history: bool
    ) -> Conversation[list[UserRead]]:
        """Read viewers, in their order."""
        reads: list[UserRead | None] = [None] * len(user_ids)
        for variant, rows in self._rows_by_variant(user_ids).items():
            chosen = [user_ids[row] for row in rows]
            moment = self._moment(variant)
            found = yield from self._readings[variant].read(
                chosen, moment, check_history=check_history
            )
            for row, read in zip(rows, found, strict=True):
                reads[row] = read
        return [read for read in reads if read is not None]

    def top_k_many(
        self, users: Sequence[str | UserRead], k: int, now_ms: int | None, *, exclude_seen: bool
    ) -> Conversation[list[TopK]]:
        """Return the best k titles for each viewer, in their order."""
        user_ids = [user for user in users if isinstance(user, str)]
        found = iter((yield from self.get_many(user_ids, check_history=exclude_seen)))
        reads = [next(found) if isinstance(user, str) else user for user in users]
        if exclude_seen:
            reads = yield from with_histories(reads)
        return ranking.top_k_many(reads, k, self._now_ms(now_ms), exclude_seen=exclude_seen)

    def score(
        self, read: UserRead, item_ids: Sequence[str], now_ms: int | None
    ) -> NDArray[np.float32]:
        """Return each title's score for the viewer."""
        return ranking.score(read, item_ids, self._now_ms(now_ms))

    def rank_rows(
        self, read: UserRead, rows: Mapping[str, Sequence[str]], now_ms: int | None
    ) -> list[str]:
        """Return the names of a page's rows, best first."""
        return ranking.rank_rows(read, rows, self._now_ms(now_ms))

    def _rows_by_variant(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[int]]:
        if self._settings.assignments is None:
            return {self._variant: range(len(user_ids))}
        rows: dict[str, list[int]] = {}
        for row, each in enumerate(self._settings.assignments.of_many(user_ids)):
            rows.setdefault(each.parameters.variant or self._variant, []).append(row)
        return rows

    def _served(self, variant: str) -> ServedModel | None:
        follower = self.followers.get(variant)
        return None if follower is None else follower.current()

    def _moment(self, variant: str) -> Moment:
        age_seconds = self.freshness.age_seconds(self._now_ms(None))
        is_stale = age_seconds is None or age_seconds > self._settings.stale_after_seconds
        return Moment(self._served(variant), age_seconds, is_stale)

    def _now_ms(self, now_ms: int | None) -> int:
        return int(self._clock() * 1000) if now_ms is None else now_ms


def _learners(variant: str, settings: ReaderSettings) -> dict[str, Learner]:
    """Return the learner of the reader's own variant, and of every other that cells set."""
    learner = settings.learner
    found = {variant: load_learner(learner) if isinstance(learner, str) else learner}
    if settings.assignments is not None:
        others = {each.name: each.learner for each in settings.assignments.variants}
        others.pop(variant, None)
        loaded = load_learners(others.values())
        found |= {name: loaded[spec] for name, spec in others.items()}
    return found
