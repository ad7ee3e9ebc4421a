"""The servers of the chaos runs, how large these are, and the table at their end.

``CHAOS=full`` runs every scenario at full length (`make chaos`); otherwise they are short enough
for every `make test`. ``CHAOS_SEED`` chooses another recording, ``CHAOS_JSON`` names a file for
the table.
"""

import json
import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from chaos.harness import SIZE, ChaosRun
from chaos.recording import in_order, record
from chaos.report import Row, table
from chaos.servers import broker_with_a_detour, start_redis
from integration.worker_process import deployed

SEED = int(os.environ.get("CHAOS_SEED", "3"))
TIMEOUT_SECONDS = SIZE.pick(short=600, full=1800)
ROWS = pytest.StashKey[list[Row]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def broker(kafka_program, tmp_path_factory):
    """A Kafka, and a proxy before it for who wants one."""
    with broker_with_a_detour(kafka_program, tmp_path_factory.mktemp("chaos-kafka")) as broker:
        yield broker


@pytest.fixture
def own_redis(redis_executable, tmp_path):
    """A Redis that the scenario may freeze and kill."""
    server = start_redis(tmp_path / "redis")
    yield server
    server.stop()


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
        scenarios = [row._asdict() for row in rows]
        found = {"form": SIZE.name, "seed": SEED, "scenarios": scenarios}
        Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
