"""The connection to a Redis Cluster: many calls at once, each to the node that has its slot.

Nothing is sent again but what a node refused to run: a call that was redirected, or whose script
the node does not know. Whoever calls decides about everything else, as with a standalone Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterError,
    MovedError,
    NoScriptError,
    RedisClusterException,
)
from redis.retry import Retry

from streamer.errors import ConfigError
from streamer.stores.cluster_exchange import Call, Cluster, Due, Exchange, Reply
from streamer.stores.slots import SLOTS

# Little of what is called here has types in redis-py.
_RedisCluster: Final[Any] = redis.RedisCluster
_ClusterNode: Final[Any] = redis.cluster.ClusterNode
_key_slot: Final[Any] = redis.crc.key_slot
_parse_url: Final[Any] = redis.connection.parse_url

MAX_ROUNDS: Final = 5
"""Of one call: redirected more often than that, it waits for a cluster that knows what it wants."""
DEFAULT_PORT: Final = 6379
SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})
KEY_OF_SCRIPT: Final = 3


class ClusterClient:
    """A client of a Redis Cluster; safe to use from several threads.

    It looks for the nodes with its first call, and again after one that failed.
    """

    def __init__(self, url: str, timeout_seconds: float, credentials: Mapping[str, str]) -> None:
        """Keep what is needed to connect; nothing is sent yet.

        Args:
            url: ``redis+cluster://`` or ``rediss+cluster://`` with nodes, separated by commas.
            timeout_seconds: Of one connection attempt, and of one call.
            credentials: ``username`` and ``password``, unless the URL has them.

        Raises:
            ValueError: The URL cannot be understood.
        """
        parts = urlsplit(url.replace("+cluster", "", 1))
        user, at, hosts = parts.netloc.rpartition("@")
        first, *others = hosts.split(",")
        self._url = parts._replace(netloc=user + at + first).geturl()
        if _parse_url(self._url).get("db", 0) != 0:
            msg = "a cluster has database 0 alone"
            raise ValueError(msg)
        seeds = [urlsplit(f"//{other}") for other in others]
        self._other_seeds = [(seed.hostname or "", seed.port or DEFAULT_PORT) for seed in seeds]
        self._timeout_seconds = timeout_seconds
        self._credentials = dict(credentials)
        self._lock = Lock()
        self._cluster: Any = None
        self._callbacks: Mapping[str, Callable[[Reply], Reply]] = {}
        self._failed_node: str | None = None
        """The topology is looked up again before the next call, and this node is asked last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. May be called twice."""
        if self._cluster is not None:
            self._cluster.disconnect_connection_pools()  # its `close` leaves those of a URL open
            self._cluster.close()

    def ping(self) -> None:
        """Ask every shard for a sign of life; raises redis-py's errors."""
        cluster = self._topology()
        for node in cluster.get_primaries():
            try:
                cluster.get_redis_connection(node).ping()
            except redis.RedisError:
                self._failed_node = node.name
                raise

    def primaries(self) -> list[str]:
        """Return the name of every primary, as far as anybody knows; raises redis-py's errors."""
        return sorted(node.name for node in self._topology().get_primaries())

    def connection_of(self, primary: str) -> redis.Redis | None:
        """Return the client of one of them, None if it is none any more."""
        cluster = self._topology()
        nodes = {node.name: node for node in cluster.get_primaries()}
        connection: redis.Redis | None = None
        if primary in nodes:
            connection = cluster.get_redis_connection(nodes[primary])
        return connection

    def buckets_of(self, primary: str) -> list[int]:
        """Return the buckets that one of them has."""
        nodes_of_slot = self._topology().nodes_manager.slots_cache
        owners = [nodes_of_slot.get(slot) for slot in SLOTS]
        return [bucket for bucket, nodes in enumerate(owners) if nodes and nodes[0].name == primary]

    def execute_command(self, *command: str | bytes | int) -> Reply:
        """Run one command whose keys are in one slot, as `redis.Redis` does; raises its errors.

        Not by redis-py's own: it cannot follow ASK to a node that has no slot yet.
        """
        key = command[KEY_OF_SCRIPT if command[0] in SCRIPTS else 1]
        slot = _key_slot(key if isinstance(key, bytes) else str(key).encode())
        (answer,) = self.call_many([Call(slot, command)])
        if isinstance(answer, Exception):
            raise answer
        as_usual = self._callbacks.get(str(command[0]))
        return answer if as_usual is None else as_usual(answer)

    def call_many(self, calls: Sequence[Call]) -> list[Reply]:
        """Send calls, all those of a node together, and return their answers in order.

        A call without an answer has an exception of redis-py in its place: others may have one.

        Raises:
            RedisClusterException: No node answers; nothing was sent.
            ConfigError: This is no cluster.
        """
        cluster = self._topology()
        answers: list[Reply] = [None] * len(calls)
        due = [Due(row, call) for row, call in enumerate(calls)]
        for _ in range(MAX_ROUNDS):
            exchange = Exchange(cluster, answers, self._timeout_seconds)
            exchange.run(due)
            answered = ((each, answers[each.row]) for each in due)
            due = [again for each, answer in answered if (again := _again(cluster, each, answer))]
            if exchange.failed_node is not None:
                self._failed_node = exchange.failed_node
                break  # who calls must repeat it all
            if not due:
                break
        for each in due:
            self._failed_node = self._failed_node or ""
            error = ClusterError("the nodes do not agree about a slot")
            error.__cause__ = answers[each.row]
            answers[each.row] = error
        return answers

    def _topology(self) -> Cluster:
        """Return redis-py's client, which knows where the slots are, as far as anybody does."""
        with self._lock:
            try:
                if self._cluster is None:
                    self._cluster = self._open()
                    node = self._cluster.get_default_node()
                    self._callbacks = node.redis_connection.response_callbacks
                elif self._failed_node is not None:
                    self._cluster.nodes_manager.initialize(last_failed_node_name=self._failed_node)
            except RedisClusterException as error:
                self.close()
                self._cluster = None  # the next call begins with the nodes of the URL
                _ensure_cluster(error)
                raise
            self._failed_node = None
            return self._cluster

    def _open(self) -> Cluster:
        return _RedisCluster(
            url=self._url,
            startup_nodes=[_ClusterNode(host, port) for host, port in self._other_seeds],
            require_full_coverage=False,  # a shard that is missing must not take the others away
            socket_timeout=self._timeout_seconds,
            socket_connect_timeout=self._timeout_seconds,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            **self._credentials,
        )


def _again(cluster: Cluster, due: Due, answer: Reply) -> Due | None:
    """Return what is to be sent next: nothing, unless a node refused to run the call."""
    nodes = cluster.nodes_manager
    if isinstance(answer, MovedError):
        nodes.move_slot(answer)
        return due._replace(ask=None)
    if isinstance(answer, AskError):
        node = _ClusterNode(answer.host, answer.port)  # one without a slot is not known yet
        return due._replace(ask=nodes.nodes_cache.setdefault(node.name, node))
    if isinstance(answer, NoScriptError) and due.call.script is not None:
        # EVAL also keeps the script.
        command = ("EVAL", due.call.script.source, *due.call.command[2:])
        return due._replace(call=Call(due.call.slot, command))
    return None


def _ensure_cluster(error: RedisClusterException) -> None:
    reason: BaseException | None = error
    while reason is not None:
        if "cluster support disabled" in str(reason):
            raise ConfigError(
                "[redis] url: this Redis is no node of a cluster; write redis:// for redis+cluster://"
            ) from error
        reason = reason.__cause__ or reason.__context__
