"""`streamer worker --processes N` on real processes: who comes back, and who stays behind."""

import http.client
import json
import os
import signal
import socket
from pathlib import Path

import pytest
from integration.worker_process import deployed, some_traffic
from waiting import eventually

from streamer.host.ports import free_ports

NOBODY = "redis://127.0.0.1:9/0"
START_SECONDS = 90.0  # several processes at once, on a busy machine

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        yield deployment


class Supervised:
    """A supervisor under test, and what it says of its workers."""

    def __init__(self, deployment, *arguments, **settings):
        self.main = deployment.start_worker(*arguments, **settings)

    def starts(self):
        return self.main.said("worker_process_started")

    def pid(self, number):
        """Return the process id of the last start of a worker."""
        return [entry["pid"] for entry in self.starts() if entry["number"] == number][-1]

    def port(self, number):
        ports = {e["metrics_port"] for e in self.starts() if e["number"] == number}
        assert len(ports) == 1, "a worker keeps its port"
        return ports.pop()

    def is_live(self, number):
        return status(self.port(number), "/livez") == 200

    def signal(self, number=signal.SIGTERM):
        self.main.process.send_signal(number)


def status(port, path):
    """Return the answer's status; None while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def is_running(pid):
    """Whether a process has not ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_base(count):
    """Return the first of so many free ports in a row."""

    def try_one():
        base = free_ports(1)[0]
        try:
            for port in range(base, base + count):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            return None
        return base

    return eventually(try_one)


def test_a_killed_worker_comes_back_on_its_port_and_a_signal_ends_all_with_0(deployment):
    deployment.create_topics()
    base = free_base(2)
    targets = deployment.folder / "targets.json"
    supervised = Supervised(
        deployment, "--wait", "--processes", "2", "--targets", str(targets), metrics__port=base
    )
    eventually(lambda: all(status(base + n, "/readyz") == 200 for n in range(2)), START_SECONDS)
    assert [entry["metrics_port"] for entry in supervised.starts()] == [base, base + 1]
    assert json.loads(targets.read_text()) == [
        {"targets": [f"127.0.0.1:{base + n}" for n in range(2)]}
    ]
    killed, other = supervised.pid(1), supervised.pid(0)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: supervised.pid(1) != killed, START_SECONDS)
    eventually(lambda: status(base + 1, "/readyz") == 200, START_SECONDS)
    assert supervised.pid(0) == other
    assert supervised.main.said("worker_process_ended")[0]["exit_code"] == 128 + signal.SIGKILL

    deployment.produce(some_traffic(61, 300, bad_share=0.03))
    deployment.wait_until_learned()
    assert supervised.main.terminate(START_SECONDS) == 0
    eventually(lambda: deployment.committed() == deployment.ends())
    assert not any(map(is_running, [other, killed, supervised.pid(1)]))
    assert {entry["number"] for entry in supervised.main.said("worker_stopped")} == {0, 1}


def test_ctrl_c_ends_all_with_0_and_free_ports_are_said(deployment):
    supervised = Supervised(deployment, "--processes", "2")
    eventually(lambda: len(supervised.starts()) == 2, START_SECONDS)
    assert supervised.port(0) != supervised.port(1)
    eventually(lambda: supervised.is_live(0) and supervised.is_live(1), START_SECONDS)
    # A terminal sends Ctrl-C to the whole process group: workers must not hear of it twice.
    groups = {os.getpgid(supervised.pid(number)) for number in (0, 1)}
    assert os.getpgid(supervised.main.process.pid) not in groups
    supervised.signal(signal.SIGINT)
    assert supervised.main.wait(START_SECONDS) == 0


def test_a_supervisor_that_is_killed_leaves_no_worker(deployment):
    supervised = Supervised(deployment, "--wait", "--processes", "3", redis__url=NOBODY)
    eventually(lambda: len(supervised.starts()) == 3, START_SECONDS)
    pids = [supervised.pid(number) for number in range(3)]
    eventually(lambda: all(supervised.is_live(number) for number in range(3)), START_SECONDS)
    supervised.main.kill()
    eventually(lambda: not any(map(is_running, pids)))


def test_a_port_that_one_worker_cannot_have_ends_all_with_78(deployment):
    base = free_base(2)
    with socket.create_server(("127.0.0.1", base + 1)):
        supervised = Supervised(
            deployment, "--wait", "--processes", "2", metrics__port=base, redis__url=NOBODY
        )
        assert supervised.main.wait(START_SECONDS) == 78
    assert f"cannot listen on 127.0.0.1:{base + 1}" in supervised.main.output
    refused = supervised.main.said("worker_process_refused")
    assert [entry["number"] for entry in refused] == [1]
    assert len(supervised.starts()) == 2
    assert not any(is_running(supervised.pid(number)) for number in (0, 1))


def test_a_mistake_in_the_configuration_starts_nobody(deployment):
    mistakes = {
        "65500 to 65539": ({"metrics__port": 65_500}, "40"),
        "STREAMER__WORKER__BATCH_RECORDS": ({"worker__batch_records": 0}, "2"),
    }
    for words, (settings, count) in mistakes.items():
        supervised = Supervised(deployment, "--processes", count, **settings)
        assert supervised.main.wait(START_SECONDS) == 78
        assert supervised.main.output.startswith("streamer: ")
        assert words in supervised.main.output
        assert supervised.main.output.count("\n") == 1


def test_a_worker_that_dies_at_once_all_the_time_is_started_with_growing_pauses(deployment):
    supervised = Supervised(
        deployment, "--processes", "1", redis__url=NOBODY, worker__start_timeout_seconds=0.01
    )
    ended = eventually(
        lambda: (said := supervised.main.said("worker_process_ended")) and len(said) >= 3 and said,
        START_SECONDS,
    )
    assert {entry["exit_code"] for entry in ended} == {69}
    pauses = [entry["starts_in_seconds"] for entry in ended]
    assert pauses == sorted(pauses)
    assert pauses[2] >= 2 * pauses[0]
    supervised.signal()
    assert supervised.main.wait(START_SECONDS) == 0  # whoever runs or not: nothing is in hand
