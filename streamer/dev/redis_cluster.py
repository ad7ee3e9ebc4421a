"""A real Redis Cluster on free loopback ports: shards, each with as many replicas as wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamer.dev.redis_server import ASK_TIMEOUT_SECONDS, RedisServer
from streamer.errors import TransientError
from streamer.host.ports import LOOPBACK, free_ports

N_SLOTS: Final = 16_384
BUS_PORT_DISTANCE: Final = 10_000
"""Between a node's port and that of the cluster's bus; fixed before Redis 7."""
FORM_TIMEOUT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05


class RedisCluster:
    """Redis servers that form one cluster; nodes may be stopped, killed and started again.

    Args:
        folder: Where each node has a folder of its own; the caller removes it.
        n_shards: Servers that share the slots evenly.
        n_replicas: Further servers of each shard.
        arguments: More of redis-server's arguments, for all of them.

    Raises:
        TransientError: No redis-server can be found; says what to install.
    """

    def __init__(
        self,
        folder: Path,
        n_shards: int = 3,
        n_replicas: int = 0,
        arguments: Sequence[str] = (),
    ) -> None:
        ports = free_ports(n_shards * (1 + n_replicas), second=BUS_PORT_DISTANCE)
        self._folder, self._arguments = folder, tuple(arguments)
        servers = [self._server(port) for port in ports]
        self.primaries = servers[:n_shards]
        self.replicas = [servers[n_shards + shard :: n_shards] for shard in range(n_shards)]

    @property
    def url(self) -> str:
        """The addresses of all primaries, as `[redis] url` takes them."""
        return "redis+cluster://" + ",".join(
            f"{LOOPBACK}:{server.port}" for server in self.primaries
        )

    @property
    def servers(self) -> list[RedisServer]:
        """All nodes, the primaries of the beginning first."""
        return [*self.primaries, *(replica for shard in self.replicas for replica in shard)]

    @property
    def is_running(self) -> bool:
        """Whether all nodes were started and none has ended."""
        return all(server.is_running for server in self.servers)

    @property
    def version(self) -> str:
        """The version of its first node."""
        return self.primaries[0].version

    def start(self) -> None:
        """Start every node and return when they form a cluster that serves every slot.

        Raises:
            TransientError: They do not.
        """
        try:
            for server in self.servers:
                server.start()
            self._form()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Let every node end by itself. May be repeated."""
        for server in self.servers:
            server.stop()

    def add_server(self) -> RedisServer:
        """Start one more node, which the others know but which has no slot; the caller stops it."""
        server = self._server(free_ports(1, second=BUS_PORT_DISTANCE)[0])
        server.start()
        with node_client(server) as node:
            node.execute_command("CLUSTER MEET", LOOPBACK, self.primaries[0].port)
        n_nodes = str(len(self.servers) + 1)
        everybody = [*self.servers, server]
        self._wait("meet", lambda node: _info(node)["cluster_known_nodes"] == n_nodes, everybody)
        self._wait("agree", lambda node: _info(node)["cluster_state"] == "ok", everybody)
        return server

    def _server(self, port: int) -> RedisServer:
        folder = self._folder / f"node-{port}"
        folder.mkdir()
        # Failures are noticed after the time-out, and a replica that lags is promoted all the same.
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        lagging = ("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
        return RedisServer(folder, (*cluster, *lagging, *self._arguments), port)

    def _form(self) -> None:
        n_shards = len(self.primaries)
        bounds = [N_SLOTS * shard // n_shards for shard in range(n_shards + 1)]
        for shard, server in enumerate(self.primaries):
            with node_client(server) as node:
                node.execute_command("CLUSTER SET-CONFIG-EPOCH", shard + 1)
                node.execute_command("CLUSTER ADDSLOTS", *range(bounds[shard], bounds[shard + 1]))
        with node_client(self.primaries[0]) as first:
            for server in self.servers[1:]:
                first.execute_command("CLUSTER MEET", LOOPBACK, server.port)
        n_nodes = str(len(self.servers))
        self._wait("meet", lambda node: _info(node)["cluster_known_nodes"] == n_nodes)
        for primary, replicas in zip(self.primaries, self.replicas, strict=True):
            for replica in replicas:
                with node_client(replica) as node:
                    node.execute_command("CLUSTER REPLICATE", node_id(primary))
        self._wait("serve every slot", lambda node: _info(node)["cluster_state"] == "ok")
        self._wait("replicate", _is_in_step)

    def _wait(
        self,
        what: str,
        is_true: Callable[[redis.Redis], bool],
        servers: Sequence[RedisServer] = (),
    ) -> None:
        deadline = time.monotonic() + FORM_TIMEOUT_SECONDS
        for server in servers or self.servers:
            with node_client(server) as node:
                while not is_true(node):
                    if time.monotonic() > deadline:
                        raise TransientError(f"the nodes of the Redis Cluster did not {what}")
                    time.sleep(POLL_SECONDS)


def node_client(server: RedisServer) -> redis.Redis:
    """Return a client of one node alone, which follows no redirection."""
    return redis.Redis.from_url(
        server.url,
        socket_timeout=ASK_TIMEOUT_SECONDS,
        socket_connect_timeout=ASK_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def node_id(server: RedisServer) -> str:
    """Return the name by which the other nodes know a running node."""
    with node_client(server) as node:
        return str(node.execute_command("CLUSTER MYID").decode())


def _info(node: redis.Redis) -> dict[str, str]:
    execute: Callable[..., dict[str, str]] = node.execute_command
    return execute("CLUSTER INFO")


def _is_in_step(node: redis.Redis) -> bool:
    """Whether a node is no replica, or has everything."""
    found = node.info("replication")
    return bool(found["role"] == "master" or found["master_link_status"] == "up")
