"""A real Apache Kafka on free loopback ports: broker and controller in one process (KRaft).

Time-outs of groups are far below Kafka's defaults, so that a lost worker is noticed within 6 s
instead of 45 s; every replication factor is 1.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamer.dev.kafka_program import KafkaProgram
from streamer.dev.processes import ServerProcess
from streamer.errors import TransientError
from streamer.host.ports import LOOPBACK, free_ports
from streamer.host.tether import tethered

START_TIMEOUT_SECONDS: Final = 60.0
STOP_TIMEOUT_SECONDS: Final = 20.0
FORMAT_TIMEOUT_SECONDS: Final = 60.0
ASK_TIMEOUT_SECONDS: Final = 0.5

# For a short-lived broker beside the programs it feeds: the quick compiler and the plain collector
# start 0.4 s sooner and halved the broker's processor time over 600,000 records (4.1 s, not 8.5).
JVM_OPTIONS: Final = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
LOG_OPTIONS: Final = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    # They print every setting of every component, 2,300 lines a start.
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
)

PROPERTIES: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "BROKER",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    # After a kill the controller waits this long for the broker that it believes is still alive:
    # a restart took 12 s with Kafka's 9 s, and takes 5 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # A quarter of the heap by default, for compacted topics that nobody here has but Kafka itself.
    "log.cleaner.dedupe.buffer.size": "8388608",
}


class KafkaServer:
    """A one-node Kafka with its port and folder; both stay over stop, kill and start.

    Args:
        program: From `streamer.dev.kafka_program.find_kafka_program`.
        folder: Where it keeps its log and its data; the caller removes it.
        properties: More of server.properties, above ours.
        ports: Of the broker and of the controller; they must be free. None takes any.
        cluster_id: Of the cluster that it is part of; None makes a cluster of one.
    """

    def __init__(
        self,
        program: KafkaProgram,
        folder: Path,
        properties: Mapping[str, str] | None = None,
        ports: tuple[int, int] | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self.port, self._controller_port = ports or free_ports(2)
        self._is_alone = cluster_id is None
        self.cluster_id = cluster_id or new_cluster_id()
        self._program = program
        self._folder = folder
        self._properties = dict(properties or {})
        # Its native libraries are unpacked here, where they go away with the folder.
        options = [*JVM_OPTIONS, *LOG_OPTIONS, f"-Djava.io.tmpdir={folder}"]
        command = program.command("kafka.Kafka", options)
        self._process = ServerProcess("Kafka", [*command, str(self._properties_path)], folder)

    @property
    def bootstrap_servers(self) -> str:
        """The address, as every Kafka client reads it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def name(self) -> str:
        """What it is, with its version: ``apache-kafka 4.4.0``."""
        return f"apache-kafka {self._program.version}"

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
        """Start it and return when every partition can be read and written.

        Raises:
            TransientError: It ended or was not ready in time; with the end of its log.
        """
        self._format_once()
        client = quiet_admin(self.bootstrap_servers)
        self._process.start(lambda: self._is_ready(client), START_TIMEOUT_SECONDS)
        make_group_coordinator(client)

    def launch(self) -> None:
        """Start it and return at once: one of several is ready only when most of them run."""
        self._format_once()
        self._process.start(lambda: True, START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """Let it end by itself, as an operator would."""
        self._process.stop(STOP_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same ports and folder."""
        self.stop()
        self.start()

    @property
    def _properties_path(self) -> Path:
        return self._folder / "server.properties"

    def _is_ready(self, client: AdminClient) -> bool:
        client.poll(0)  # drop what the client reports while nobody listens yet
        try:
            cluster = client.list_topics(timeout=ASK_TIMEOUT_SECONDS)
        except KafkaException:
            return False
        partitions = (
            part for topic in cluster.topics.values() for part in topic.partitions.values()
        )
        # Ours, not another broker that took the port first; and after a restart, leaders elected.
        return str(cluster.cluster_id) == self.cluster_id and all(
            part.leader >= 0 for part in partitions
        )

    def _format_once(self) -> None:
        """Write the properties and, before the first start, the cluster's id into the data."""
        data = self._folder / "data"
        if (data / "meta.properties").exists():
            return
        text = server_properties(self.port, self._controller_port, data, self._properties)
        self._properties_path.write_text(text, encoding="utf-8")
        arguments = (
            "format",
            *(["--standalone"] if self._is_alone else []),
            "-t",
            self.cluster_id,
            "-c",
            str(self._properties_path),
        )
        command = self._program.command("kafka.tools.StorageTool", JVM_OPTIONS)
        done = subprocess.run(
            tethered([*command, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FORMAT_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise TransientError(f"Kafka could not prepare its folder:\n{done.stdout[-1500:]}")


def server_properties(port: int, controller_port: int, data: Path, more: Mapping[str, str]) -> str:
    """Return the text of server.properties; ``more`` overrides ours."""
    addresses = {
        "listeners": f"BROKER://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"BROKER://{LOOPBACK}:{port}",
        "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller_port}",
        "log.dirs": str(data),
    }
    properties = {**PROPERTIES, **addresses, **more}
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def new_cluster_id() -> str:
    """Return 16 bytes as Kafka writes them, never with a leading dash: Java reads an option."""
    return base64.urlsafe_b64encode(b"s" + os.urandom(15)).rstrip(b"=").decode()


def quiet_admin(bootstrap_servers: str) -> AdminClient:
    """Return a client that says nothing while the broker is still coming up."""
    return AdminClient(
        {
            "bootstrap.servers": bootstrap_servers,
            "log_level": 0,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
        }
    )


def make_group_coordinator(client: AdminClient) -> None:
    """Ask about some group, for the effect: Kafka makes its offsets topic when first asked.

    The first consumer would otherwise wait 3 s for it; asking now costs 0.1 s.
    """
    for answer in client.describe_consumer_groups(["none"], request_timeout=5).values():
        answer.exception(timeout=10)  # usually "not coordinator": the topic is just being made
