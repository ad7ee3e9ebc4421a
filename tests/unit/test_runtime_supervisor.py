import signal
from itertools import count, pairwise
from random import Random

import pytest
from unit.test_runtime_fakes import FakeClock, capture_log

from streamer.runtime.supervisor import (
    FIRST_PAUSE_SECONDS,
    HEALTHY_SECONDS,
    LOOK_SECONDS,
    MAX_PAUSE_SECONDS,
    REAP_SECONDS,
    STOP_MARGIN_SECONDS,
    BackOff,
    Supervisor,
    SupervisorParts,
)

STOP_SECONDS = 15.0


class FakeProcess:
    """A worker that lives so long, and drains in so many seconds after the first SIGTERM.

    It ends as the real one does: a second SIGTERM is exit code 143, a SIGKILL signal 9, and a
    SIGTERM before it has begun to listen signal 15.
    """

    def __init__(self, bench, pid):
        self._clock, self.pid = bench.clock, pid
        self._ends_at, self._code = bench.clock.now + bench.lives, bench.code
        self._drain, self._has_begun = bench.drain, bench.has_begun
        self.signals = []
        self.is_reaped = False

    def poll(self):
        if self._clock.now < self._ends_at:
            return None
        self.is_reaped = True
        return self._code

    def send_signal(self, number):
        assert not self.is_reaped, "its id may be somebody else's by now"
        self.signals.append(number)
        if number == signal.SIGKILL or not self._has_begun:
            self._ends_at, self._code = self._clock.now, -number
        elif self.signals.count(signal.SIGTERM) > 1:
            self._ends_at, self._code = self._clock.now, 128 + number
        else:
            self._ends_at, self._code = self._clock.now + self._drain, 0


class Bench:
    """A supervisor whose workers follow a plan; the clock moves when it sleeps."""

    def __init__(self, n_workers=1):
        self.clock = FakeClock()
        self.log, self.said = capture_log()
        self.started = []
        self.processes = []
        self.lives, self.code, self.drain, self.has_begun = 10.0**9, 1, 0.3, True
        self.refusals = []
        self.at = {}
        self._pids = count(100)
        self.supervisor = Supervisor(
            SupervisorParts(self.start, self.clock.monotonic, self.sleep, Random(7), self.log),
            [9464 + number for number in range(n_workers)],
            STOP_SECONDS,
        )

    def start(self, number, port):
        if self.refusals:
            raise self.refusals.pop()
        self.started.append((self.clock.now, number, port))
        self.processes.append(FakeProcess(self, next(self._pids)))
        return self.processes[-1]

    def sleep(self, seconds):
        self.clock.sleep(seconds)
        for moment in [each for each in self.at if self.clock.now >= each]:
            self.at.pop(moment)()
        assert self.clock.now < 1000.0 + 10**5, "it never ends"

    def later(self, seconds, do):
        self.at[self.clock.now + seconds] = do

    def run(self, stop_after):
        self.later(stop_after, self.supervisor.stop)
        return self.supervisor.run()

    def gaps(self):
        times = [moment for moment, _, _ in self.started]
        return [later - earlier for earlier, later in pairwise(times)]

    def events_said(self):
        return [entry["event"] for entry in self.said]


@pytest.fixture
def bench():
    return Bench()


# --- how long it waits ---------------------------------------------------------------------------


def test_the_pause_doubles_with_every_death_and_is_bounded():
    back_off = BackOff(Random(1))
    bound = FIRST_PAUSE_SECONDS
    for _ in range(200):
        assert bound / 2 <= back_off.pause_seconds(0.0) <= bound
        bound = min(2 * bound, MAX_PAUSE_SECONDS)


def test_the_pauses_of_two_workers_differ():
    one, other = BackOff(Random(1)), BackOff(Random(2))
    assert one.pause_seconds(0.0) != other.pause_seconds(0.0)


def test_a_worker_that_was_healthy_begins_again_with_the_first_pause():
    back_off = BackOff(Random(1))
    for _ in range(10):
        back_off.pause_seconds(HEALTHY_SECONDS - 1)
    assert back_off.pause_seconds(HEALTHY_SECONDS - 1) > 10 * FIRST_PAUSE_SECONDS
    assert back_off.pause_seconds(HEALTHY_SECONDS) <= FIRST_PAUSE_SECONDS


# --- who is started, and when --------------------------------------------------------------------


def test_every_worker_has_a_number_and_a_port_of_its_own():
    bench = Bench(3)
    assert bench.run(stop_after=5) == 0
    assert [(number, port) for _, number, port in bench.started] == [
        (0, 9464), (1, 9465), (2, 9466)
    ]  # fmt: skip
    assert bench.events_said() == ["worker_process_started"] * 3 + ["supervisor_stopped"]


@pytest.mark.parametrize("code", [0, 1, 2, 69, 70, 75, 143, -signal.SIGKILL, -signal.SIGTERM])
def test_a_worker_that_dies_is_started_again_on_its_port_whatever_it_died_of(code):
    bench = Bench(2)
    bench.lives, bench.code = 30.0, code
    assert bench.run(stop_after=40) == 0
    assert sorted(port for _, _, port in bench.started) == [9464, 9464, 9465, 9465]
    assert bench.started[2][0] - 1030.0 <= FIRST_PAUSE_SECONDS + 2 * LOOK_SECONDS
    ended = [entry for entry in bench.said if entry["event"] == "worker_process_ended"]
    assert [entry["exit_code"] for entry in ended] == [128 - code if code < 0 else code] * 2


def test_a_worker_that_dies_at_once_all_the_time_is_started_with_growing_pauses(bench):
    bench.lives = 0.0
    bench.run(stop_after=300)
    gaps = bench.gaps()
    assert 10 < len(gaps) < 25
    bound = FIRST_PAUSE_SECONDS
    for gap in gaps:
        assert bound / 2 - LOOK_SECONDS <= gap <= bound + 3 * LOOK_SECONDS
        bound = min(2 * bound, MAX_PAUSE_SECONDS)


def test_the_death_of_one_keeps_no_other_waiting():
    bench = Bench(2)
    bench.lives = 0.0
    bench.later(3.0, lambda: setattr(bench, "lives", 10.0**9))
    assert bench.run(stop_after=100) == 0
    assert {number for _, number, _ in bench.started[-2:]} == {0, 1}


def test_a_machine_that_has_no_room_for_a_process_is_asked_again(bench):
    bench.refusals = [OSError("no room")] * 3
    assert bench.run(stop_after=20) == 0
    assert bench.events_said()[:4] == ["worker_process_not_started"] * 3 + [
        "worker_process_started"
    ]


# --- the end -------------------------------------------------------------------------------------


def test_a_stop_asks_everybody_once_and_is_0_when_all_have_drained():
    bench = Bench(3)
    bench.drain = 7.0
    assert bench.run(stop_after=5) == 0
    assert [process.signals for process in bench.processes] == [[signal.SIGTERM]] * 3
    assert bench.clock.now - 1000.0 < 5 + 7 + 1
    assert all(process.is_reaped for process in bench.processes)


def test_a_worker_that_had_not_begun_has_nothing_to_drain():
    bench = Bench(2)
    bench.has_begun = False
    assert bench.run(stop_after=0.2) == 0
    assert [process.poll() for process in bench.processes] == [-signal.SIGTERM] * 2


def test_what_does_not_drain_in_time_is_killed_and_said(bench):
    bench.drain = 10.0**6
    assert bench.run(stop_after=5) == 128 + signal.SIGKILL
    assert bench.processes[0].signals == [signal.SIGTERM, signal.SIGKILL]
    lasted = bench.clock.now - 1005.0
    assert STOP_SECONDS + STOP_MARGIN_SECONDS <= lasted < STOP_SECONDS + STOP_MARGIN_SECONDS + 1
    assert "worker_process_killed" in bench.events_said()


def test_a_process_that_the_kernel_does_not_let_go_is_not_waited_for_for_ever(bench):
    bench.later(1.0, lambda: setattr(bench.processes[0], "send_signal", lambda _: None))
    assert bench.run(stop_after=5) == 128 + signal.SIGKILL
    assert bench.clock.now - 1005.0 < STOP_SECONDS + STOP_MARGIN_SECONDS + REAP_SECONDS + 1


def test_a_second_signal_is_passed_on_too():
    bench = Bench(2)
    bench.drain = 10.0
    bench.later(6.0, bench.supervisor.stop)
    assert bench.run(stop_after=5) == 128 + signal.SIGTERM
    assert [process.signals for process in bench.processes] == [[signal.SIGTERM] * 2] * 2
    assert bench.clock.now - 1006.0 < 1


def test_nobody_is_started_after_a_stop_though_its_pause_is_over():
    bench = Bench(2)
    bench.drain = 10.0
    bench.later(4.9, lambda: vars(bench.processes[1]).update(_ends_at=0.0, _code=1))
    assert bench.run(stop_after=5) == 0
    assert "worker_process_ended" in bench.events_said()
    assert len(bench.started) == 2


def test_one_that_is_refused_after_all_were_well_is_tried_again_and_stops_nobody():
    """Its port was taken meanwhile, say: no reason to take the others down."""
    bench = Bench(2)
    bench.later(
        HEALTHY_SECONDS + 4.0, lambda: vars(bench.processes[1]).update(_ends_at=0.0, _code=78)
    )
    bench.later(HEALTHY_SECONDS + 9.0, bench.supervisor.stop)
    assert bench.supervisor.run() == 0
    assert [number for _, number, _ in bench.started] == [0, 1, 1]
    assert "worker_process_refused" in [entry["event"] for entry in bench.said]


def test_a_refused_configuration_ends_all_with_78_and_is_not_tried_again():
    bench = Bench(3)
    bench.later(4.0, lambda: vars(bench.processes[1]).update(_ends_at=0.0, _code=78))
    assert bench.supervisor.run() == 78
    assert len(bench.started) == 3
    assert [process.signals for process in bench.processes] == [
        [signal.SIGTERM], [], [signal.SIGTERM]
    ]  # fmt: skip
    assert "worker_process_refused" in bench.events_said()


def test_the_most_telling_code_of_a_stop_is_the_code_of_all():
    bench = Bench(3)

    def end_differently():
        bench.supervisor.stop()
        for process, code in zip(bench.processes, [0, 75, 143], strict=True):
            vars(process).update(_ends_at=bench.clock.now, _code=code)

    bench.later(4.0, end_differently)
    assert bench.supervisor.run() == 143
