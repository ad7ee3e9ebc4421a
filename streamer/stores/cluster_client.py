"""The connection to a Redis Cluster: many calls at once, each to the node that has its slot.

redis-py knows the topology, the connections and the protocol. Its pipeline is not used: after a
time-out it sends every command of the pipeline again by itself, one by one, each with a time-out of
its own. Here nothing is sent again but what a node refused to run: a call that was redirected, or
whose script the node does not know. Whoever calls decides about everything else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from threading import Lock
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    ResponseError,
    SlotNotCoveredError,
)
from redis.retry import Retry

from streamer.errors import ConfigError
from streamer.stores.scripts import Script

# Little of what is called here has types in redis-py.
_RedisCluster: Final[Any] = RedisCluster
_ClusterNode: Final[Any] = redis.cluster.ClusterNode
_parse_url: Final[Any] = redis.connection.parse_url
_Node = Any
_Connection = Any
_Cluster = Any
_Reply = Any

MAX_ROUNDS: Final = 5
"""Of one call: redirected more often than that, it waits for a cluster that knows what it wants."""
DEFAULT_PORT: Final = 6379


class Call(NamedTuple):
    """A command whose keys are all in one slot.

    Attributes:
        slot: Which.
        command: Its name and arguments.
        script: What an EVALSHA runs, for a node that does not know it.
    """

    slot: int
    command: tuple[Any, ...]
    script: Script | None = None


class _Due(NamedTuple):
    """A call that is to be sent, and where a node told to ask for it."""

    row: int
    call: Call
    ask: _Node = None


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
            self._cluster.close()

    def ping(self) -> None:
        """Ask every shard for a sign of life; raises redis-py's errors."""
        cluster = self._topology()
        for node in cluster.get_primaries():
            cluster.get_redis_connection(node).ping()

    def execute_command(self, *command: str | bytes | int) -> _Reply:
        """Run one command whose keys are in one slot, as `redis.Redis` does; raises its errors."""
        return self._topology().execute_command(*command)

    def call_many(self, calls: Sequence[Call]) -> list[Any]:
        """Send calls, all those of a node together, and return their answers in order.

        A call without an answer has an exception of redis-py in its place: others may have one.

        Raises:
            RedisError, RedisClusterException: No node answers; nothing was sent.
        """
        answers: list[Any] = [None] * len(calls)
        due = [_Due(row, call) for row, call in enumerate(calls)]
        for _ in range(MAX_ROUNDS):
            self._exchange(self._topology(), due, answers)
            due = [again for each in due if (again := self._redirected(each, answers[each.row]))]
            if not due:
                break
        for each in due:
            error = ClusterError("the nodes do not agree about a slot")
            error.__cause__ = answers[each.row]
            answers[each.row] = error
        return answers

    def _topology(self) -> _Cluster:
        """Return redis-py's client, which knows where the slots are, as far as anybody does."""
        with self._lock:
            try:
                if self._cluster is None:
                    self._cluster = self._open()
                elif self._failed_node is not None:
                    self._cluster.nodes_manager.initialize(last_failed_node_name=self._failed_node)
            except RedisClusterException as error:
                self._cluster = None  # the next call begins with the nodes of the URL
                _ensure_cluster(error)
                raise
            self._failed_node = None
            return self._cluster

    def _open(self) -> _Cluster:
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

    def _exchange(self, cluster: _Cluster, due: Sequence[_Due], answers: list[Any]) -> None:
        """Send what is due, then read, so that all nodes work at the same time."""
        deadline = time.monotonic() + self._timeout_seconds
        of_node = self._by_node(cluster, due, answers)
        connections = self._connect(cluster, of_node, answers)
        try:
            sent = [node for node in connections if self._send(node, of_node, answers, connections)]
            for node in sent:
                self._receive(node, of_node[node], answers, connections[node], deadline)
        except BaseException:
            for connection in connections.values():
                connection.disconnect()  # what was not read must not be taken for another answer
            raise
        finally:
            for node, connection in connections.items():
                cluster.get_redis_connection(node).connection_pool.release(connection)

    def _by_node(
        self,
        cluster: _Cluster,
        due: Sequence[_Due],
        answers: list[Any],
    ) -> dict[_Node, list[_Due]]:
        """Return what each node is to be sent; none for a slot is an answer."""
        of_node: dict[_Node, list[_Due]] = {}
        nodes_of_slot = cluster.nodes_manager.slots_cache
        for each in due:
            nodes = [each.ask] if each.ask is not None else nodes_of_slot.get(each.call.slot)
            if nodes:
                of_node.setdefault(nodes[0], []).append(each)  # the primary comes first
            else:
                error = SlotNotCoveredError(f"no node has slot {each.call.slot}")
                self._fail("", [each], answers, error)
        return of_node

    def _connect(
        self,
        cluster: _Cluster,
        of_node: Mapping[_Node, Sequence[_Due]],
        answers: list[Any],
    ) -> dict[_Node, _Connection]:
        """Return a connection to each node, or none if one of them cannot be reached.

        Others could be sent their calls, but who calls must repeat them all the same.
        """
        connections: dict[_Node, _Connection] = {}
        for node in of_node:
            pool = cluster.get_redis_connection(node).connection_pool
            try:
                connections[node] = pool.get_connection()
            except (redis.RedisError, OSError) as error:
                for group in of_node.values():
                    self._fail(node.name, group, answers, error)
                for other, connection in connections.items():
                    cluster.get_redis_connection(other).connection_pool.release(connection)
                return {}
        return connections

    def _send(
        self,
        node: _Node,
        of_node: Mapping[_Node, Sequence[_Due]],
        answers: list[Any],
        connections: Mapping[_Node, _Connection],
    ) -> bool:
        """Send a node all of its calls at once; return whether that worked."""
        connection = connections[node]
        commands: list[tuple[Any, ...]] = []
        for each in of_node[node]:
            if each.ask is not None:
                commands.append(("ASKING",))
            commands.append(each.call.command)
        try:
            # redis-py would hand each command to the kernel by itself, and look at the type of
            # each argument: a batch has hundreds of commands of dozens of arguments.
            packed = b"".join(map(hiredis.pack_command, commands))
            connection.send_packed_command([packed], check_health=False)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            connection.disconnect()
            self._fail(node.name, of_node[node], answers, error)
            return False
        return True

    def _receive(
        self,
        node: _Node,
        group: Sequence[_Due],
        answers: list[Any],
        connection: _Connection,
        deadline: float,
    ) -> None:
        """Read the answers of a node."""
        n_read = 0
        try:
            _ensure_readable(connection, deadline)
            for each in group:
                if each.ask is not None:
                    _answer(connection)
                answers[each.row] = _answer(connection)
                n_read += 1
        except (redis.ConnectionError, redis.TimeoutError) as error:
            connection.disconnect()
            self._fail(node.name, group[n_read:], answers, error)
        else:
            if any(isinstance(answers[each.row], ClusterDownError) for each in group):
                self._failed_node = node.name

    def _fail(
        self,
        node_name: str,
        group: Sequence[_Due],
        answers: list[Any],
        error: Exception,
    ) -> None:
        self._failed_node = node_name
        for each in group:
            answers[each.row] = error

    def _redirected(self, due: _Due, answer: object) -> _Due | None:
        """Return what is to be sent next: nothing, unless a node refused to run the call."""
        if isinstance(answer, MovedError | AskError):
            nodes = self._topology().nodes_manager
            if isinstance(answer, MovedError):
                nodes.move_slot(answer)
                return due._replace(ask=None)
            node = nodes.get_node(host=answer.host, port=answer.port)
            if node is None:
                self._failed_node = ""  # a node that we do not know: look for it
            return due._replace(ask=node)
        if isinstance(answer, NoScriptError) and due.call.script is not None:
            # EVAL also keeps the script.
            command = ("EVAL", due.call.script.source, *due.call.command[2:])
            return due._replace(call=Call(due.call.slot, command))
        return None


def _ensure_readable(connection: _Connection, deadline: float) -> None:
    """Wait for a node; nodes are read one after the other, and those that are frozen share it."""
    if not connection.can_read(max(0.0, deadline - time.monotonic())):
        raise redis.TimeoutError("no answer in time")


def _answer(connection: _Connection) -> _Reply:
    """Read one answer; a refusal is one, too."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _ensure_cluster(error: RedisClusterException) -> None:
    reason: BaseException | None = error
    while reason is not None:
        if "cluster support disabled" in str(reason):
            raise ConfigError(
                "[redis] url: this Redis is no node of a cluster; write redis:// for redis+cluster://"
            ) from error
        reason = reason.__cause__ or reason.__context__
