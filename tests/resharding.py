"""What operators and accidents do to a Redis Cluster: slots move, shards fail over.

Slots move step by step, as `redis-cli --cluster reshard` moves them.
"""

from contextlib import ExitStack, contextmanager, suppress

import redis
from waiting import eventually

from streamer.dev.redis_cluster import node_client, node_id
from streamer.host.ports import LOOPBACK

MIGRATE_TIMEOUT_MS = 5000


class Move:
    """The move of one slot, begun; meanwhile some of its keys are here and some there."""

    def __init__(self, slot, source, target, clients, ids, port):
        self.slot, self._source, self._target = slot, source, target
        self._clients, self._ids, self._port = clients, ids, port

    def left(self):
        """Return the keys that are still at the source."""
        return self._source.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 100_000)

    def carry(self, keys):
        """Move some keys."""
        if keys:
            self._source.execute_command(
                "MIGRATE", LOOPBACK, self._port, "", 0, MIGRATE_TIMEOUT_MS, "KEYS", *keys
            )

    def finish(self):
        """Move what is left, and tell everybody."""
        while keys := self.left():
            self.carry(keys)
        tell = "CLUSTER SETSLOT", self.slot, "NODE", self._ids[1]
        self._target.execute_command(*tell)
        for client in (self._source, *self._clients):
            with suppress(redis.ResponseError):  # who gave its last slot away may be a replica now
                client.execute_command(*tell)


@contextmanager
def slot_moving(slot, source, target, others=()):
    """Begin to move a slot between two servers, and finish at the end."""
    with ExitStack() as stack:
        open_client = lambda server: stack.enter_context(node_client(server))  # noqa: E731
        ids = node_id(source), node_id(target)
        move = Move(
            slot,
            open_client(source),
            open_client(target),
            [open_client(server) for server in others],
            ids,
            target.port,
        )
        move._target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        move._source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        try:
            yield move
        finally:
            move.finish()


def n_refusals(servers, code):
    """How often the nodes together have answered with an error code, such as ASK."""
    total = 0
    for server in servers:
        with node_client(server) as node:
            stats = node.info("errorstats").get(f"errorstat_{code}", {})
            total += stats.get("count", 0)
    return total


def owner_of(servers, slot):
    """Return the server that has a slot."""
    with node_client(servers[0]) as node:
        for first, last, primary, *_ in node.execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(server for server in servers if server.port == primary[1])
    raise LookupError(slot)


class Shards:
    """The shards of a cluster with one replica each: who is primary changes with a fail-over."""

    ARGUMENTS = (
        *("--user", "replica", "on", ">secret", "~*", "&*", "+@all"),
        *("--masteruser", "replica", "--masterauth", "secret"),
    )
    """A user of their own, so that a replica can be locked out while everybody else is served."""

    def __init__(self, cluster):
        self.url = cluster.url
        self._pairs = [
            [primary, replica]
            for primary, (replica,) in zip(cluster.primaries, cluster.replicas, strict=True)
        ]

    def histories(self, shard):
        """Return the histories that a shard's primary holds."""
        return _histories(self._pairs[shard][0])

    def cut_link(self, shard):
        """Let the shard's replica receive nothing from now on."""
        primary, replica = self._pairs[shard]
        with node_client(primary) as node:
            node.execute_command("ACL SETUSER", "replica", "off")
            node.execute_command("CLIENT KILL", "TYPE", "replica")
        with node_client(replica) as node:
            eventually(lambda: node.info("replication")["master_link_status"] == "down", 30)

    def fail_over(self, shard):
        """Kill the primary; return what histories the replica has when it takes over."""
        primary, replica = self._pairs[shard]
        left = _histories(replica)
        primary.kill()
        with node_client(replica) as node:
            eventually(lambda: node.info("replication")["role"] == "master", 60)
        self._pairs[shard] = [replica, primary]
        return left

    def mend(self, shard):
        """Start the old primary again; return when it is a replica that has everything."""
        _, replica = self._pairs[shard]
        replica.start()

        def is_in_step():
            with node_client(replica) as node:
                found = node.info("replication")
            return found["role"] == "slave" and found["master_link_status"] == "up"

        eventually(is_in_step, 60)


def _histories(server):
    with node_client(server) as node:
        node.readonly()
        keys = list(node.scan_iter("st:h:*", count=10_000))
        pipeline = node.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        return dict(zip(map(bytes.decode, keys), pipeline.execute(), strict=True))
