"""Three real Apache Kafkas as one cluster, to lose one of: each is broker and controller.

Every partition has three replicas, and a write is acknowledged when two have it; so a broker may
be lost at any time, and with it the leaders that it had, the group's coordinator or the controller.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata  # type: ignore[attr-defined]  # public, not marked

from streamer.dev.kafka_program import KafkaProgram
from streamer.dev.kafka_server import (
    ASK_TIMEOUT_SECONDS,
    START_TIMEOUT_SECONDS,
    KafkaServer,
    make_group_coordinator,
    new_cluster_id,
    quiet_admin,
)
from streamer.errors import TransientError
from streamer.host.ports import LOOPBACK, free_ports

N_BROKERS: Final = 3
READY_POLL_SECONDS: Final = 0.2
PROPERTIES: Final = {
    "offsets.topic.replication.factor": "3",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    # A follower that was killed leaves the in-sync set after this.
    "replica.lag.time.max.ms": "3000",
}


class KafkaCluster:
    """Three brokers with their ports and folders; these stay over kill and start.

    Args:
        program: From `streamer.dev.kafka_program.find_kafka_program`.
        folder: Where each broker gets a folder; the caller removes it.
        properties: More of server.properties of every broker, above ours.
    """

    def __init__(
        self, program: KafkaProgram, folder: Path, properties: Mapping[str, str] | None = None
    ) -> None:
        cluster_id = new_cluster_id()
        free = free_ports(2 * N_BROKERS)
        ports = list(zip(free[:N_BROKERS], free[N_BROKERS:], strict=True))
        voters = ",".join(
            f"{node_id}@{LOOPBACK}:{controller_port}"
            for node_id, (_, controller_port) in enumerate(ports, start=1)
        )
        self.brokers: dict[int, KafkaServer] = {}
        """By node id."""
        self._client: AdminClient | None = None
        for node_id, pair in enumerate(ports, start=1):
            own = folder / f"broker-{node_id}"
            own.mkdir()
            more = {
                **PROPERTIES,
                "node.id": str(node_id),
                "controller.quorum.voters": voters,
                **(properties or {}),
            }
            self.brokers[node_id] = KafkaServer(program, own, more, pair, cluster_id)

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all three, as every Kafka client reads them."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers.values())

    def start(self) -> None:
        """Start what does not run, and return when every broker leads or follows again.

        Raises:
            TransientError: A broker ended or was not ready in time; with the end of its log.
        """
        for broker in self.brokers.values():
            if not broker.is_running:
                broker.launch()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_whole():
            for broker in self.brokers.values():
                if not broker.is_running:
                    raise TransientError(broker.process.describe_end())
            if time.monotonic() > deadline:
                raise TransientError(
                    f"the brokers were no cluster after {START_TIMEOUT_SECONDS:g} s; the first "
                    f"one's log ends with:\n{self.brokers[1].process.log_tail()}"
                )
            time.sleep(READY_POLL_SECONDS)
        make_group_coordinator(self._admin)

    def stop(self) -> None:
        """End them all. At once: one that stops in order waits for a quorum that is going too."""
        for broker in self.brokers.values():
            broker.kill()

    def leader_of(self, topic: str, partition: int) -> int:
        """Return the node id of a partition's leader as the living brokers know it, -1 if none."""
        cluster = self._metadata()
        if cluster is None or topic not in cluster.topics:
            return -1
        return int(cluster.topics[topic].partitions[partition].leader)

    def _is_whole(self) -> bool:
        """Whether all three are there, and every replica is in sync."""
        cluster = self._metadata()
        return (
            cluster is not None
            and len(cluster.brokers) == N_BROKERS
            and all(
                part.leader >= 0 and len(part.isrs) == len(part.replicas)
                for topic in cluster.topics.values()
                for part in topic.partitions.values()
            )
        )

    @property
    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = quiet_admin(self.bootstrap_servers)
        return self._client

    def _metadata(self) -> ClusterMetadata | None:
        """Return what a living broker tells, None if none does in time."""
        self._admin.poll(0)  # drop what the client reports while nobody listens
        try:
            return self._admin.list_topics(timeout=ASK_TIMEOUT_SECONDS)
        except KafkaException:
            return None
