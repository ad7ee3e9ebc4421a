"""The servers of the chaos runs, how large these are, and the table at their end.

``CHAOS=full`` runs every scenario at full length (`make chaos`); otherwise they are short enough
for every `make test`. ``CHAOS_SEED`` chooses another recording, ``CHAOS_JSON`` names a file for
the table.
"""

import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from chaos.harness import FULL, SHORT, ChaosRun, Row
from chaos.recording import in_order, record
from chaos.tcp_proxy import TcpProxy
from integration.worker_process import deployed

from streamer.dev.kafka_server import KafkaServer
from streamer.dev.ports import LOOPBACK, free_ports
from streamer.dev.redis_server import RedisServer

SIZE = FULL if os.environ.get("CHAOS") == "full" else SHORT
SEED = int(os.environ.get("CHAOS_SEED", "3"))
TIMEOUT_SECONDS = SIZE.pick(short=300, full=1800)
ROWS = pytest.StashKey[list[Row]]()
QUICK_GROUPS = {
    # A lost member is missed after 3 s: fifty are lost.
    "group.consumer.session.timeout.ms": "3000",
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "500",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@dataclass(frozen=True)
class Broker:
    """A Kafka and a proxy before it: who comes through the proxy stays behind it."""

    server: KafkaServer
    proxy: TcpProxy


@pytest.fixture(scope="session")
def broker(kafka_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos-kafka")
    port, controller_port, detour_port, proxy_port = free_ports(4)
    properties = {
        **QUICK_GROUPS,
        "listeners": f"BROKER://{LOOPBACK}:{port},DETOUR://{LOOPBACK}:{detour_port},"
        f"CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"BROKER://{LOOPBACK}:{port},DETOUR://{LOOPBACK}:{proxy_port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,DETOUR:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    server = KafkaServer(kafka_program, folder, properties, (port, controller_port))
    try:
        server.start()
        with TcpProxy(detour_port, proxy_port) as proxy:
            yield Broker(server, proxy)
    finally:
        server.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)


@pytest.fixture
def own_redis(redis_executable, tmp_path):
    """A Redis that the scenario may freeze and kill."""
    server = start_redis(tmp_path / "redis")
    yield server
    server.stop()


def start_redis(folder, *arguments):
    folder.mkdir()
    server = RedisServer(folder, arguments)
    server.start()
    return server


@cache
def recorded():
    return record(SEED, SIZE.n_events, SIZE.n_users)


@pytest.fixture
def log():
    """The recording: (event time in ms, record to produce), in order of time."""
    return recorded()


@pytest.fixture
def run_on(unique_name, tmp_path, log, request):
    """``run_on(bootstrap_servers, redis_url)`` makes a run of the recording; its row is kept."""
    rows = request.config.stash.setdefault(ROWS, [])
    with ExitStack() as stack:

        def start(bootstrap_servers, redis_url, records=None, dtype="f16"):
            deployment = stack.enter_context(
                deployed(bootstrap_servers, redis_url, unique_name, tmp_path)
            )
            run = ChaosRun(deployment, SIZE, in_order(log) if records is None else records, dtype)
            stack.callback(lambda: rows.append(run.row_of(scenario_of(request.node.name))))
            stack.callback(run.close)
            return run

        yield start


@pytest.fixture
def run(run_on, broker, own_redis):
    """A run on one broker and one Redis."""
    return run_on(broker.server.bootstrap_servers, own_redis.url)


# --- the table ----------------------------------------------------------------------------------


def scenario_of(test_name):
    return test_name.removeprefix("test_").replace("_", " ")


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section(f"chaos ({SIZE.name})")
    for line in table(rows):
        terminalreporter.line(line)
    if path := os.environ.get("CHAOS_JSON"):
        rows_as_json = [row._asdict() for row in rows]
        Path(path).write_text(json.dumps(rows_as_json, indent=1) + "\n", encoding="utf-8")


def table(rows):
    """Return the lines of the table: what was done to whom, and what was different then."""
    cells = [("scenario", "faults injected", "events", "users", "different", "seconds")]
    for row in rows:
        faults = ", ".join(f"{number} {fault}" for fault, number in row.faults.items())
        different = "unfinished" if row.different is None else f"{row.different:,}"
        numbers = (f"{row.events:,}", f"{row.users:,}", different, f"{row.seconds:.0f}")
        cells.append((row.scenario, faults, *numbers))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
