"""The connection to Redis, and what its errors mean to us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamer.errors import ConfigError, StoreUnavailable

_KINDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis.TimeoutError, "timeout"),
    (redis.BusyLoadingError, "loading"),
    (redis.ReadOnlyError, "read_only"),
    (redis.AuthenticationError, "authentication"),
    (redis.exceptions.OutOfMemoryError, "out_of_memory"),
    (redis.exceptions.NoPermissionError, "no_permission"),
    (redis.ConnectionError, "connection"),
)


def connect(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    timeout_seconds: float = 1.0,
) -> redis.Redis:
    """Return a client that gives up after `timeout_seconds` and never sends a command twice.

    redis-py repeats a whole pipeline by itself on a time-out; whether that is right is for the
    worker to decide, which compares before it sets.

    Raises:
        ConfigError: The URL cannot be understood.
    """
    if "decode_responses" in url:
        raise ConfigError("[redis] url: decode_responses cannot be set, values are binary")
    credentials = {"username": username, "password": password}
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            **{name: value for name, value in credentials.items() if value is not None},
        )
    except ValueError as error:
        # Its text may hold a part of the password; a slash or a colon in one must be escaped.
        raise ConfigError(
            "[redis] url: expected redis://[user:password@]host[:port][/db], with special "
            "characters of the password percent-encoded"
        ) from error


@contextmanager
def store_errors() -> Iterator[None]:
    """Translate redis-py's exceptions into StoreUnavailable."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        kind = next((name for vendor, name in _KINDS if isinstance(error, vendor)), "other")
        if "OOM" in str(error):  # before Redis 7, inside a script, it has no class of its own
            kind = "out_of_memory"
        raise StoreUnavailable(f"Redis: {_explain(error)}", kind=kind) from error


def _explain(error: Exception) -> str:
    """Return what may be logged: a refusal repeats our command, and with it user ids."""
    if isinstance(error, redis.ResponseError):
        return f"{type(error).__name__} {str(error).split(' ', 1)[0][:40]}"
    return str(error)[:200]


def ping(client: redis.Redis) -> None:
    """Ask Redis for a sign of life.

    Raises:
        StoreUnavailable: There was none in time.
    """
    with store_errors():
        client.ping()
