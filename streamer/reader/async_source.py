"""What an asyncio reader asks of the world, as a port, and Redis as its adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from streamer.models import Pointer
from streamer.models.pointer import pointer_key, stored_pointer
from streamer.reader.source import FeatureSource, RedisSource
from streamer.stores import connect, store_errors
from streamer.stores.client import CLUSTER_SCHEMES, url_errors
from streamer.stores.keys import FRESH

T = TypeVar("T")
MAX_CONNECTIONS: Final = 100
"""More commands at once wait for one of these; ``?max_connections=`` in the URL is another number.
"""
MAX_THREADS: Final = 32


class AsyncFeatureSource(Protocol):
    """Where features are read from. Every call raises StoreUnavailable and may be repeated.

    A call may be cancelled at any moment, and its answer is then nobody else's.
    """

    async def read_values(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, None where there is none or no string."""
        ...

    async def read_fresh(self) -> Mapping[bytes, bytes]:
        """Return the fields of ``st:fresh``: times in milliseconds, of every group."""
        ...

    async def read_pointer(self, variant: str) -> Pointer | None:
        """Return which model of a variant is live; None before the first publish.

        Raises:
            ModelError: The stored value is not a pointer.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


def connect_async(url: str, timeout_seconds: float) -> AsyncFeatureSource:
    """Return a source; nothing is sent yet.

    Args:
        url: As `streamer.stores.connect` takes it, of one Redis or of a cluster.
        timeout_seconds: Of one connection attempt, and of one command.

    Raises:
        ConfigError: The URL cannot be understood.
    """
    if url.startswith(CLUSTER_SCHEMES):
        return ThreadedSource(RedisSource(connect(url, timeout_seconds=timeout_seconds)))
    with url_errors(url):
        pool: Any = redis_asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
    return AsyncRedisSource(redis_asyncio.Redis.from_pool(pool), timeout_seconds)


class AsyncRedisSource:
    """One Redis, of one event loop."""

    def __init__(self, client: Any, timeout_seconds: float) -> None:  # noqa: ANN401  hardly typed
        """Keep `client`, of redis.asyncio; nothing is sent yet.

        Args:
            client: Without retries of its own.
            timeout_seconds: A command ends within twice that, connecting included.
        """
        self._client = client
        self._deadline_seconds = 2 * timeout_seconds

    async def read_values(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, in one command."""
        if not keys:
            return []
        values: list[bytes | None] = await self._execute("MGET", *keys)
        return values

    async def read_fresh(self) -> Mapping[bytes, bytes]:
        """Return the fields of ``st:fresh``."""
        fields: Mapping[bytes, bytes] = await self._execute("HGETALL", FRESH)
        return fields

    async def read_pointer(self, variant: str) -> Pointer | None:
        """Return which model of a variant is live."""
        return stored_pointer(variant, await self._execute("GET", pointer_key(variant)))

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def _execute(self, *command: str) -> Any:  # noqa: ANN401  each command has its own
        task = asyncio.current_task()
        assert task is not None
        n_cancelled = task.cancelling()
        with store_errors():
            try:
                # A connection whose answer nobody waits for is closed, never given to another.
                async with asyncio.timeout(self._deadline_seconds):
                    answer = await self._client.execute_command(*command)
            except TimeoutError as error:
                raise redis.TimeoutError("no answer in time") from error
        if task.cancelling() > n_cancelled:
            # Until Python 3.12 `asyncio.wait_for`, by which redis-py sends, swallows a cancellation
            # that comes as it ends. Whoever is cancelled must end, or closing waits for ever.
            raise asyncio.CancelledError
        return answer


class ThreadedSource:
    """A source that blocks, on threads of its own: the way to a Redis Cluster.

    Its client asks all shards at once and follows slots that move; a thread costs 0.1 ms a call.
    Whoever is cancelled stops waiting; the thread ends within the source's own time-outs.
    """

    def __init__(self, source: FeatureSource) -> None:
        """Keep `source`, which is safe to use from several threads."""
        self._source = source
        self._threads = ThreadPoolExecutor(MAX_THREADS, "reader-cluster")

    async def read_values(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key."""
        return await self._run(self._source.read_values, keys)

    async def read_fresh(self) -> Mapping[bytes, bytes]:
        """Return the fields of ``st:fresh``."""
        return await self._run(self._source.read_fresh)

    async def read_pointer(self, variant: str) -> Pointer | None:
        """Return which model of a variant is live."""
        return await self._run(self._source.read_pointer, variant)

    async def close(self) -> None:
        """Close the source's connections, once nobody uses them."""
        await asyncio.to_thread(self._threads.shutdown)
        self._source.close()

    async def _run(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
