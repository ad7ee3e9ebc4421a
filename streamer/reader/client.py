"""`FeatureReader`: reads viewers' features and ranks titles; safe to use from several threads.

A request never waits for the item model or for the freshness, which two daemon threads keep at
hand, and never meets an exception of Redis: docs/reference/reader.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.factors import DEFAULT_LEARNER, ItemModel, Learner
from streamer.reader.conversation import Conversation, hold
from streamer.reader.poller import Poller
from streamer.reader.ranking import TopK
from streamer.reader.read import UserRead
from streamer.reader.serving import DEFAULTS, ReaderSettings, Serving, assignments_of
from streamer.reader.source import FeatureSource, RedisSource
from streamer.stores import connect

T = TypeVar("T")


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
        self._serving = Serving(variant, models, settings, clock, monotonic)
        self._source = source
        look = partial(self._serving.freshness.look, source.read_fresh)
        self._pollers = [Poller("reader-fresh", look, settings.fresh_interval_seconds)]
        for name, follower in self._serving.followers.items():
            look = partial(follower.look, partial(source.read_pointer, name))
            self._pollers.append(Poller("reader-model", look, settings.model_interval_seconds))

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
        imported_lasting: bool = DEFAULTS.imported_lasting,
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
            imported_lasting: Use imported vectors in place of `lasting`, where there are any of
                the very model; one more key a viewer in the same command.
            learner: That of the workers, ``[models] learner``: a name, or an object. Variants of
                `experiments` have learners of their own.

        Raises:
            ConfigError: The URL, the variant, the file or a learner cannot be understood.
        """
        client = connect(redis_url, timeout_seconds=timeout_seconds)
        settings = ReaderSettings(
            group_id,
            stale_after_seconds,
            learner=learner,
            assignments=assignments_of(experiments, variant),
            imported_lasting=imported_lasting,
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
        return self._serving.model

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
        return self._hold(self._serving.get_many(user_ids, check_history=check_history))

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
        return self._hold(self._serving.top_k_many(users, k, now_ms, exclude_seen=exclude_seen))

    def score(
        self, read: UserRead, item_ids: Sequence[str], now_ms: int | None = None
    ) -> NDArray[np.float32]:
        """Return each title's score for the viewer, -inf if it is unknown; asks nobody."""
        return self._serving.score(read, item_ids, now_ms)

    def rank_rows(
        self, read: UserRead, rows: Mapping[str, Sequence[str]], now_ms: int | None = None
    ) -> list[str]:
        """Return the names of a page's rows by the viewer's taste, best first; asks nobody.

        A row counts as much as its best four titles do on average.
        """
        return self._serving.rank_rows(read, rows, now_ms)

    def _hold(self, conversation: Conversation[T]) -> T:
        return hold(conversation, self._read_values)

    def _read_values(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._serving.circuit.call():
            return self._source.read_values(keys)
