"""`FeatureReader`: reads viewers' features and ranks titles; safe to use from several threads.

A request never waits for the item model or for the freshness, which two daemon threads keep at
hand, and never meets an exception of Redis: docs/reference/reader.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

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
from streamer.reader.draft import Moment
from streamer.reader.freshness import Freshness
from streamer.reader.live_model import ModelFollower, ServedModel
from streamer.reader.poller import Poller
from streamer.reader.ranking import TopK
from streamer.reader.read import UserRead
from streamer.reader.reading import Reading
from streamer.reader.source import FeatureSource, RedisSource
from streamer.stores import connect


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
    """

    group_id: str = "streamer"
    stale_after_seconds: float = 10.0
    retry_after_seconds: float = 1.0
    model_interval_seconds: float = 0.5
    fresh_interval_seconds: float = 1.0
    learner: Learner | str = DEFAULT_LEARNER
    assignments: Assignments | None = None


DEFAULTS: Final = ReaderSettings()


class FeatureReader:
    """Reads viewers' features: of one variant, or of each viewer's own.

    Open it with `connect`; one per process is enough.
    """

    def __init__(
        self,
        source: FeatureSource,
        variant: str,
        models: Path | None,
        settings: ReaderSettings = DEFAULTS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the parts; nothing is asked before `start`.

        Raises:
            ConfigError: No variant can have this name, or a learner cannot be loaded.
        """
        try:
            pointer_key(variant)
        except ModelError as error:
            raise ConfigError(str(error)) from error
        self._source = source
        self._variant = variant
        self._settings = settings
        self._clock = clock
        self._freshness = Freshness(source.read_fresh, settings.group_id)
        self._pollers = [
            Poller("reader-fresh", self._freshness.look, settings.fresh_interval_seconds)
        ]
        circuit = Circuit(settings.retry_after_seconds, monotonic)
        self._readings: dict[str, Reading] = {}
        self._followers: dict[str, ModelFollower] = {}
        for name, learner in _learners(variant, settings).items():
            self._readings[name] = Reading(source, name, learner, circuit)
            if models is not None:
                read_pointer = partial(source.read_pointer, name)
                follower = ModelFollower(read_pointer, models, learner, monotonic)
                self._followers[name] = follower
                self._pollers.append(
                    Poller("reader-model", follower.look, settings.model_interval_seconds)
                )

    @classmethod
    def connect(  # noqa: PLR0913  each is a line of a service's set-up
        cls,
        redis_url: str,
        variant: str = "default",
        models: Path | str | None = None,
        *,
        group_id: str = DEFAULTS.group_id,
        stale_after_seconds: float = DEFAULTS.stale_after_seconds,
        timeout_seconds: float = 0.05,
        experiments: Path | str | None = None,
        learner: Learner | str = DEFAULT_LEARNER,
    ) -> Self:
        """Open a reader; a Redis that does not answer yet makes reads DEGRADED until it does.

        The live model is loaded before this returns, if it can be. Connect after a fork, not
        before: threads do not survive one.

        Args:
            redis_url: ``redis://``, ``rediss://`` or ``unix://``, with credentials and a database;
                ``redis+cluster://`` or ``rediss+cluster://`` with any nodes of a Redis Cluster.
            variant: Whose features.
            models: The directory that models are published to; None for vectors alone.
            group_id: The workers' consumer group.
            stale_after_seconds: When features count as STALE.
            timeout_seconds: Of one command, and of one connection attempt.
            experiments: A file of experiments, read once: each viewer gets the variant of their
                cell, and `variant` where no cell sets one.
            learner: That of the workers, ``[models] learner``: a name, or an object. Variants of
                `experiments` have learners of their own.

        Raises:
            ConfigError: The URL, the variant, the file or a learner cannot be understood.
        """
        assignments = None
        if experiments is not None:
            assignments = Assignments(load_catalog(Path(experiments)), variant)
        client = connect(redis_url, timeout_seconds=timeout_seconds)
        settings = ReaderSettings(
            group_id, stale_after_seconds, learner=learner, assignments=assignments
        )
        folder = None if models is None else Path(models)
        return cls(RedisSource(client), variant, folder, settings).start()

    def start(self) -> Self:
        """Look at freshness and model once, then go on beside the requests; return itself."""
        for poller in self._pollers:
            poller.start()
        return self

    def close(self) -> None:
        """Stop the threads and let go of the connections. May be called twice."""
        for poller in self._pollers:
            poller.stop()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def model(self) -> ItemModel | None:
        """The live item model of `variant`, or None while none is loaded."""
        served = self._served(self._variant)
        return None if served is None else served.model

    def get(self, user_id: str, *, check_history: bool = False) -> UserRead:
        """Read one viewer; as `get_many`."""
        return self.get_many([user_id], check_history=check_history)[0]

    def get_many(self, user_ids: Sequence[str], *, check_history: bool = False) -> list[UserRead]:
        """Read viewers, in their order.

        Args:
            user_ids: Any strings; one that no event could carry is COLD.
            check_history: Read the histories in the same command, compare them with the features,
                and keep them in the reads. Without it histories are read, in a second command,
                only of users whose features cannot be used.
        """
        reads: list[UserRead | None] = [None] * len(user_ids)
        for variant, rows in self._rows_by_variant(user_ids).items():
            chosen = [user_ids[row] for row in rows]
            moment = self._moment(variant)
            found = self._readings[variant].read(chosen, moment, check_history=check_history)
            for row, read in zip(rows, found, strict=True):
                reads[row] = read
        return [read for read in reads if read is not None]

    def top_k(
        self,
        user: str | UserRead,
        k: int = 20,
        now_ms: int | None = None,
        *,
        exclude_seen: bool = True,
    ) -> TopK:
        """Return the best k titles for one viewer; as `top_k_many`."""
        return self.top_k_many([user], k, now_ms, exclude_seen=exclude_seen)[0]

    def top_k_many(
        self,
        users: Sequence[str | UserRead],
        k: int = 20,
        now_ms: int | None = None,
        *,
        exclude_seen: bool = True,
    ) -> list[TopK]:
        """Return the best k titles for each viewer, in their order.

        Args:
            users: User ids, which are read first, or reads.
            k: At most so many titles.
            now_ms: Epoch milliseconds; None is now.
            exclude_seen: Leave out what the viewer played or gave a thumbs-down. It needs the
                history: in the same command for an id, in one more for reads that have none.
        """
        user_ids = [user for user in users if isinstance(user, str)]
        found = iter(self.get_many(user_ids, check_history=exclude_seen))
        reads = [next(found) if isinstance(user, str) else user for user in users]
        if exclude_seen:
            reads = self._readings[self._variant].with_histories(reads)  # of all variants
        return ranking.top_k_many(reads, k, self._now_ms(now_ms), exclude_seen=exclude_seen)

    def score(
        self, read: UserRead, item_ids: Sequence[str], now_ms: int | None = None
    ) -> NDArray[np.float32]:
        """Return each title's score for the viewer, -inf if it is unknown; asks nobody."""
        return ranking.score(read, item_ids, self._now_ms(now_ms))

    def rank_rows(
        self, read: UserRead, rows: Mapping[str, Sequence[str]], now_ms: int | None = None
    ) -> list[str]:
        """Return the names of a page's rows by the viewer's taste, best first; asks nobody.

        A row counts as much as its best four titles do on average.
        """
        return ranking.rank_rows(read, rows, self._now_ms(now_ms))

    def _rows_by_variant(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[int]]:
        if self._settings.assignments is None:
            return {self._variant: range(len(user_ids))}
        rows: dict[str, list[int]] = {}
        for row, each in enumerate(self._settings.assignments.of_many(user_ids)):
            rows.setdefault(each.parameters.variant or self._variant, []).append(row)
        return rows

    def _served(self, variant: str) -> ServedModel | None:
        follower = self._followers.get(variant)
        return None if follower is None else follower.current()

    def _moment(self, variant: str) -> Moment:
        age_seconds = self._freshness.age_seconds(self._now_ms(None))
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
