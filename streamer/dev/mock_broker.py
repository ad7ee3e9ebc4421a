"""A first look without Java: librdkafka's mock cluster, in a process of its own.

``python -m streamer.dev.mock_broker`` prints its address and lives until its stdin closes or it
is sent SIGTERM. The mock ships inside confluent-kafka. Everything is in memory, at most 5 MB or
100,000 records a partition; topics come into being, with 4 partitions, when a client first asks
for them; there is no admin API, and members that leave a group are not noticed at once. Good for
a look around, not for judging rebalances.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from confluent_kafka import Producer

from streamer.dev.processes import ServerProcess

MOCK_NAME: Final = "librdkafka-mock"
START_TIMEOUT_SECONDS: Final = 20.0
STOP_TIMEOUT_SECONDS: Final = 5.0
TOPICS: Final = ("play-events", "browse-events", "play-events.dlq", "browse-events.dlq")
"""There from the start, under the names of the default configuration."""
ADDRESS_LINE: Final = re.compile(r"^(\S+:\d+)\n", re.MULTILINE)


class MockBroker:
    """A mock broker with a port of its own; what it held is gone when it stops.

    Args:
        folder: Where it keeps its log; the caller removes it.
    """

    name = MOCK_NAME

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "streamer.dev.mock_broker"]
        self._process = ServerProcess("Mock broker", command, folder)
        self.bootstrap_servers = ""

    @property
    def process(self) -> ServerProcess:
        """The process: its id, its log, whether it is running."""
        return self._process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process.is_running

    def start(self) -> None:
        """Start it, on a new port; raises TransientError if it does not tell its address."""
        self._process.log_path.unlink(missing_ok=True)  # it holds the address of the last start
        self._process.start(self._read_address, START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """End it."""
        self._process.stop(STOP_TIMEOUT_SECONDS)

    def _read_address(self) -> bool:
        said = self._process.log_path.read_text(encoding="utf-8")
        found = ADDRESS_LINE.search(said)
        self.bootstrap_servers = found[1] if found else ""
        return found is not None


def main() -> None:
    """Serve until stdin closes: whoever started us has ended, or wants us to."""
    producer = Producer(
        {
            "bootstrap.servers": "unused",
            "test.mock.num.brokers": 1,
            "log_level": 0,
        }
    )
    for topic in TOPICS:  # asking is what makes them: nobody can create topics here
        producer.list_topics(topic, timeout=START_TIMEOUT_SECONDS)
    brokers = producer.list_topics(timeout=START_TIMEOUT_SECONDS).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
