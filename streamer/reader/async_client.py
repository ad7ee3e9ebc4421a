"""`AsyncFeatureReader`: what `FeatureReader` does, for services on asyncio.

The two differ in how they wait. What is asked, what becomes of the answers and how titles are
ranked is the same code (`serving`, `conversation`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ModelError, StoreUnavailable
from streamer.factors import DEFAULT_LEARNER, ItemModel, Learner
from streamer.reader.async_source import AsyncFeatureSource, connect_async
from streamer.reader.conversation import Conversation, hold_async
from streamer.reader.ranking import TopK
from streamer.reader.read import UserRead
from streamer.reader.serving import DEFAULTS, ReaderSettings, Serving, assignments_of

T = TypeVar("T")


class AsyncFeatureReader:
    """Reads viewers' features: of one variant, or of each viewer's own; of one event loop.

    Open it with `connect` in an ``async with``, or `start` and `close` it; one per process is
    enough. Any number of calls may be under way at once, and each may be cancelled.
    """

    def __init__(
        self,
        source: AsyncFeatureSource,
        variant: str,
        models: Path | None,
        settings: ReaderSettings = DEFAULTS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the parts; nothing is asked before `start`.

        Raises:
            ConfigError: As `FeatureReader`.
        """
        self._source = source
        self._settings = settings
        self._serving = Serving(variant, models, settings, clock, monotonic)
        self._tasks: list[asyncio.Task[None]] = []

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
        """Return a reader, not yet started; arguments and errors are those of `FeatureReader`."""
        source = connect_async(redis_url, timeout_seconds)
        settings = ReaderSettings(
            group_id,
            stale_after_seconds,
            learner=learner,
            assignments=assignments_of(experiments, variant),
            imported_lasting=imported_lasting,
        )
        return cls(source, variant, None if models is None else Path(models), settings)

    async def start(self) -> Self:
        """Look at freshness and model once, then go on beside the requests; return itself.

        The live model is loaded before this returns, if it can be; on a thread, so that the event
        loop goes on.
        """
        assert not self._tasks, "a reader is started once"
        looks = [(self._look_at_fresh, self._settings.fresh_interval_seconds)]
        looks += [
            (partial(self._look_at_model, variant), self._settings.model_interval_seconds)
            for variant in self._serving.followers
        ]
        await asyncio.gather(*(look() for look, _ in looks))
        self._tasks = [asyncio.create_task(_poll(*each), name="reader") for each in looks]
        return self

    async def close(self) -> None:
        """Stop looking and let go of the connections. May be called twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._source.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def model(self) -> ItemModel | None:
        """The live item model of `variant`, or None while none is loaded."""
        return self._serving.model

    async def get(self, user_id: str, *, check_history: bool = False) -> UserRead:
        """Read one viewer; as `get_many`."""
        return (await self.get_many([user_id], check_history=check_history))[0]

    async def get_many(
        self, user_ids: Sequence[str], *, check_history: bool = False
    ) -> list[UserRead]:
        """Read viewers, in their order; as `FeatureReader.get_many`."""
        return await self._hold(self._serving.get_many(user_ids, check_history=check_history))

    async def top_k(
        self,
        user: str | UserRead,
        k: int = 20,
        now_ms: int | None = None,
        *,
        exclude_seen: bool = True,
    ) -> TopK:
        """Return the best k titles for one viewer; as `top_k_many`."""
        return (await self.top_k_many([user], k, now_ms, exclude_seen=exclude_seen))[0]

    async def top_k_many(
        self,
        users: Sequence[str | UserRead],
        k: int = 20,
        now_ms: int | None = None,
        *,
        exclude_seen: bool = True,
    ) -> list[TopK]:
        """Return the best k titles for each viewer; as `FeatureReader.top_k_many`."""
        return await self._hold(
            self._serving.top_k_many(users, k, now_ms, exclude_seen=exclude_seen)
        )

    def score(
        self, read: UserRead, item_ids: Sequence[str], now_ms: int | None = None
    ) -> NDArray[np.float32]:
        """Return each title's score for the viewer, -inf if it is unknown; asks nobody."""
        return self._serving.score(read, item_ids, now_ms)

    def rank_rows(
        self, read: UserRead, rows: Mapping[str, Sequence[str]], now_ms: int | None = None
    ) -> list[str]:
        """Return the names of a page's rows by the viewer's taste, best first; asks nobody."""
        return self._serving.rank_rows(read, rows, now_ms)

    async def _hold(self, conversation: Conversation[T]) -> T:
        return await hold_async(conversation, self._read_values)

    async def _read_values(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._serving.circuit.call():
            return await self._source.read_values(keys)

    async def _look_at_fresh(self) -> None:
        with suppress(StoreUnavailable):
            self._serving.freshness.take(await self._source.read_fresh())

    async def _look_at_model(self, variant: str) -> None:
        follower = self._serving.followers[variant]
        try:
            pointer = await self._source.read_pointer(variant)
        except StoreUnavailable:
            return
        except ModelError as error:
            follower.refuse(error)
            return
        if pointer is not None and follower.wants(pointer):
            await asyncio.to_thread(follower.follow, pointer)


async def _poll(look: Callable[[], Awaitable[None]], interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        await look()
