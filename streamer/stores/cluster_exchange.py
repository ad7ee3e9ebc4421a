"""One round of calls to the nodes of a Redis Cluster: all are sent, then all answers are read.

redis-py knows the nodes, the connections and the protocol. Its pipeline is not used: after a
time-out it sends every command of the pipeline again by itself, one by one, each with a time-out of
its own. Here nothing is sent twice; who calls decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import hiredis
import redis
from redis.exceptions import ClusterDownError, ResponseError, SlotNotCoveredError

from streamer.stores.scripts import Script

# redis-py has no types for what is called here.
Cluster = Any
Node = Any
Connection = Any
Reply = Any
_pack: Callable[..., bytes] = hiredis.pack_command


class Call(NamedTuple):
    """A command whose keys are all in one slot.

    Attributes:
        slot: Which.
        command: Its name and arguments.
        script: What an EVALSHA runs, for a node that does not know it.
    """

    slot: int
    command: tuple[str | bytes | int, ...]
    script: Script | None = None


class Due(NamedTuple):
    """A call that is to be sent.

    Attributes:
        row: Where its answer goes.
        call: What.
        ask: The node that another one told to ask, in the middle of a slot's move.
    """

    row: int
    call: Call
    ask: Node = None


class Exchange:
    """A round of calls. Without an answer, the exception is the answer."""

    def __init__(self, cluster: Cluster, answers: list[Reply], timeout_seconds: float) -> None:
        """Begin.

        Args:
            cluster: redis-py's client.
            answers: Where they go, by `Due.row`.
            timeout_seconds: Of everything; a node that has begun to answer gets as much again.
        """
        self._cluster = cluster
        self._answers = answers
        self._deadline = time.monotonic() + timeout_seconds
        self.failed_node: str | None = None
        """A node that failed, empty if it has no name: the topology may be another now."""

    def run(self, due: Sequence[Due]) -> None:
        """Send what is due, then read, so that all nodes work at the same time."""
        of_node = self._by_node(due)
        connections = self._connect(of_node)
        try:
            sent = [node for node in connections if self._send(node, of_node, connections)]
            for node in sent:
                self._receive(node, of_node[node], connections[node])
        except BaseException:
            for connection in connections.values():
                connection.disconnect()  # what was not read must not be taken for another answer
            raise
        finally:
            self._release(connections)

    def _by_node(self, due: Sequence[Due]) -> dict[Node, list[Due]]:
        """Return what each node is to be sent."""
        of_node: dict[Node, list[Due]] = {}
        nodes_of_slot = self._cluster.nodes_manager.slots_cache
        for each in due:
            nodes = [each.ask] if each.ask is not None else nodes_of_slot.get(each.call.slot)
            if nodes:
                of_node.setdefault(nodes[0], []).append(each)  # the primary comes first
            else:
                self._fail("", [each], SlotNotCoveredError(f"nobody has slot {each.call.slot}"))
        return of_node

    def _connect(self, of_node: Mapping[Node, Sequence[Due]]) -> dict[Node, Connection]:
        """Return a connection to each node, or none if one of them cannot be reached.

        Others could be sent their calls, but who calls must repeat them all the same.
        """
        connections: dict[Node, Connection] = {}
        for node in of_node:
            pool = self._cluster.get_redis_connection(node).connection_pool
            try:
                connections[node] = pool.get_connection()
            except (redis.RedisError, OSError) as error:
                for group in of_node.values():
                    self._fail(node.name, group, error)
                self._release(connections)
                return {}
        return connections

    def _release(self, connections: Mapping[Node, Connection]) -> None:
        for node, connection in connections.items():
            self._cluster.get_redis_connection(node).connection_pool.release(connection)

    def _send(
        self,
        node: Node,
        of_node: Mapping[Node, Sequence[Due]],
        connections: Mapping[Node, Connection],
    ) -> bool:
        """Send a node all of its calls at once; return whether that worked."""
        connection = connections[node]
        commands: list[tuple[str | bytes | int, ...]] = []
        for each in of_node[node]:
            if each.ask is not None:
                commands.append(("ASKING",))
            commands.append(each.call.command)
        try:
            # redis-py would hand each command to the kernel by itself, and look at the type of
            # each argument: a batch has hundreds of commands of dozens of arguments.
            packed = b"".join(map(_pack, commands))
            connection.send_packed_command([packed], check_health=False)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            connection.disconnect()
            self._fail(node.name, of_node[node], error)
            return False
        return True

    def _receive(self, node: Node, group: Sequence[Due], connection: Connection) -> None:
        """Read the answers of a node."""
        n_read = 0
        try:
            self._ensure_readable(connection)
            for each in group:
                if each.ask is not None:
                    _answer(connection)
                self._answers[each.row] = answer = _answer(connection)
                n_read += 1
                if isinstance(answer, ClusterDownError):
                    self.failed_node = node.name
        except (redis.ConnectionError, redis.TimeoutError) as error:
            connection.disconnect()
            self._fail(node.name, group[n_read:], error)

    def _ensure_readable(self, connection: Connection) -> None:
        """Wait for a node; one is read after the other, and frozen ones share the wait."""
        if not connection.can_read(max(0.0, self._deadline - time.monotonic())):
            raise redis.TimeoutError("no answer in time")

    def _fail(self, node_name: str, group: Sequence[Due], error: Exception) -> None:
        self.failed_node = node_name
        for each in group:
            self._answers[each.row] = error


def _answer(connection: Connection) -> Reply:
    """Read one answer; a refusal is one, too."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
