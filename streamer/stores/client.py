"""The connection to Redis, and what its errors mean to us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterCrossSlotError,
    ClusterDownError,
    ClusterError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    RedisClusterException,
    TryAgainError,
)
from redis.retry import Retry

from streamer.errors import ConfigError, StoreUnavailable
from streamer.stores.cluster_client import ClusterClient

RedisClient = redis.Redis | ClusterClient

PROBE: Final = ("st:mark:{00}", "st:mark:{01}")
"""Two keys of different slots: a node of a cluster refuses to read them in one command."""
CLUSTER_SCHEMES: Final = ("redis+cluster://", "rediss+cluster://")
_KINDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis.TimeoutError, "timeout"),
    (redis.BusyLoadingError, "loading"),
    (redis.ReadOnlyError, "read_only"),
    (redis.AuthenticationError, "authentication"),
    (OutOfMemoryError, "out_of_memory"),
    (NoPermissionError, "no_permission"),
    (TryAgainError, "slot_moving"),
    (ClusterDownError, "cluster_down"),
    (ClusterError, "cluster_unsettled"),
    (redis.ConnectionError, "connection"),
)


def connect(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    timeout_seconds: float = 1.0,
) -> RedisClient:
    """Return a client that gives up after `timeout_seconds` and never sends a command twice.

    redis-py repeats a whole pipeline by itself on a time-out; whether that is right is for the
    worker to decide, which compares before it sets.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; of a cluster ``redis+cluster://`` or
            ``rediss+cluster://``, with any of its nodes, comma-separated.
        username: Of an ACL user; may also be part of the URL.
        password: Likewise.
        timeout_seconds: Of one connection attempt, and of one command.

    Raises:
        ConfigError: The URL cannot be understood.
    """
    given = {"username": username, "password": password}
    credentials = {name: value for name, value in given.items() if value is not None}
    with url_errors(url):
        if url.startswith(CLUSTER_SCHEMES):
            return ClusterClient(url, timeout_seconds, credentials)
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            **credentials,
        )


@contextmanager
def url_errors(url: str) -> Iterator[None]:
    """Translate what a client says of a URL.

    Raises:
        ConfigError: The URL cannot be understood.
    """
    if "decode_responses" in url:
        raise ConfigError("[redis] url: decode_responses cannot be set, values are binary")
    try:
        yield
    except ValueError as error:
        # Its text may hold a part of the password; a slash or a colon in one must be escaped.
        expected = (
            "redis+cluster://[user:password@]host[:port][,host[:port]...]"
            if url.startswith(CLUSTER_SCHEMES)
            else "redis://[user:password@]host[:port][/db]"
        )
        raise ConfigError(
            f"[redis] url: expected {expected}, with special characters of the password "
            "percent-encoded"
        ) from error


@contextmanager
def store_errors() -> Iterator[None]:
    """Translate redis-py's exceptions into StoreUnavailable.

    Raises:
        ConfigError: A client of a standalone Redis talks to a node of a cluster.
    """
    try:
        yield
    except (MovedError, ClusterCrossSlotError) as error:  # a `ClusterClient` raises neither
        raise ConfigError(
            "[redis] url: this is a node of a Redis Cluster; write redis+cluster:// for redis://"
        ) from error
    except (redis.RedisError, RedisClusterException, OSError) as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> StoreUnavailable:
    """Return what an exception of redis-py means."""
    reason = error
    if isinstance(error, RedisClusterException) and isinstance(error.__cause__, Exception):
        reason = error.__cause__  # no node answered, for this reason
    kind = next((name for vendor, name in _KINDS if isinstance(reason, vendor)), "other")
    if "OOM" in str(reason):  # before Redis 7, inside a script, it has no class of its own
        kind = "out_of_memory"
    return StoreUnavailable(f"Redis: {_explain(reason)}", kind=kind)


def _explain(error: Exception) -> str:
    """Return what may be logged: a refusal repeats our command, and with it user ids."""
    if isinstance(error, redis.ResponseError):
        return f"{type(error).__name__} {str(error).split(' ', 1)[0][:40]}"
    if isinstance(error, RedisClusterException):  # it may name the command
        return type(error).__name__
    return str(error)[:200]


def ping(client: RedisClient) -> None:
    """Ask Redis for a sign of life; every shard of a cluster.

    Raises:
        StoreUnavailable: There was none in time.
        ConfigError: It is a cluster and the client is for a standalone Redis, or the other way.
    """
    with store_errors():
        client.ping()
        if isinstance(client, redis.Redis):
            client.mget(PROBE)
