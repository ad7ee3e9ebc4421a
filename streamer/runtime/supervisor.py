"""Keeps N worker processes running: starts again what dies, passes on a stop, leaves nobody behind.

One thread that looks at its children ten times a second. A worker that dies is started again after
a pause that doubles with every death and is forgotten after a healthy minute. Exit code 78 is
final, as starting again does not mend a configuration, and all of them are stopped; but not once
any has lived a healthy minute: then the configuration was right, and one that is refused since (a
port that was taken meanwhile, a file in the middle of an edit) must not take the others with it.
Nothing here is
needed for correctness: workers share nothing but the consumer group.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

import structlog

LOOK_SECONDS: Final = 0.1
FIRST_PAUSE_SECONDS: Final = 0.5
MAX_PAUSE_SECONDS: Final = 30.0
HEALTHY_SECONDS: Final = 60.0
"""A worker that lived so long begins again with the first pause."""
STOP_MARGIN_SECONDS: Final = 2.0
"""After the workers' own deadline, before they are killed."""
REAP_SECONDS: Final = 5.0
"""After a kill; a process that the kernel does not let go is left to it."""
EXIT_CONFIG: Final = 78


class Process(Protocol):
    """What is asked of a worker process: subprocess.Popen, or a fake."""

    @property
    def pid(self) -> int:
        """Its id."""

    def poll(self) -> int | None:
        """Return how it ended, a signal as its negative number; None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Signal it, unless it has ended."""


class BackOff:
    """How long to wait before a worker is started again."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._n_deaths = 0

    def pause_seconds(self, lived_seconds: float) -> float:
        """Return the pause after one more death: doubling, jittered, bounded.

        Args:
            lived_seconds: How long the worker lived; after HEALTHY_SECONDS all is forgiven.
        """
        if lived_seconds >= HEALTHY_SECONDS:
            self._n_deaths = 0
        bound = min(FIRST_PAUSE_SECONDS * 2.0**self._n_deaths, MAX_PAUSE_SECONDS)
        if bound < MAX_PAUSE_SECONDS:
            self._n_deaths += 1
        return self._random.uniform(bound / 2, bound)


@dataclass(frozen=True, slots=True)
class SupervisorParts:
    """The world as a supervisor sees it.

    Attributes:
        start: Starts the worker with this number and this metrics port; raises OSError.
        clock: Monotonic seconds.
        sleep: Waits so many seconds; may return early.
        random: Of the pauses.
        log: Told of every start and every end.
    """

    start: Callable[[int, int], Process]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    random: Random
    log: structlog.stdlib.BoundLogger


@dataclass(slots=True)
class _Worker:
    """A place for a worker, and who is there."""

    number: int
    port: int
    back_off: BackOff
    process: Process | None = None
    started_at: float = 0.0
    start_at: float | None = None
    """When to start it (again); None while it runs, or will not run again."""


@dataclass(slots=True)
class _Stop:
    """That everybody is to end, and how that goes."""

    kill_at: float
    n_signals: int = 1
    n_passed_on: int = 0
    is_killing: bool = False
    exit_codes: list[int] = field(default_factory=list)


class Supervisor:
    """Runs one worker for each port until it is told to stop."""

    def __init__(self, parts: SupervisorParts, ports: Sequence[int], stop_seconds: float) -> None:
        """Keep the parts; `run` starts the workers.

        Args:
            parts: The world.
            ports: A metrics port for each worker; it keeps it over all its starts.
            stop_seconds: How long a worker itself takes at most to end after a signal.
        """
        self._start = parts.start
        self._clock = parts.clock
        self._sleep = parts.sleep
        self._log = parts.log
        self._stop_seconds = stop_seconds
        self._workers = [
            _Worker(number, port, BackOff(parts.random), start_at=0.0)
            for number, port in enumerate(ports)
        ]
        self._stop: _Stop | None = None
        self._has_been_healthy = False

    def stop(self) -> None:
        """Ask the workers to end, a second time: at once. May be called from a signal handler."""
        if self._stop is None:
            deadline = self._clock() + self._stop_seconds + STOP_MARGIN_SECONDS
            self._stop = _Stop(deadline)
        else:
            self._stop.n_signals += 1

    def run(self) -> int:
        """Supervise until everybody has ended after a stop; return the exit code of it all.

        Returns:
            0 when every worker drained; 78 when one refused its configuration; else the highest
            code of a worker that did not drain, 128 + signal for one that was killed.
        """
        while True:
            for worker in self._workers:
                self._look_at(worker)
            stop = self._stop
            if stop is not None and self._is_over(stop):
                self._log.info("supervisor_stopped", exit_code=_overall(stop.exit_codes))
                return _overall(stop.exit_codes)
            self._sleep(LOOK_SECONDS)

    def _look_at(self, worker: _Worker) -> None:
        if worker.process is not None:
            code = worker.process.poll()
            self._has_been_healthy |= self._clock() - worker.started_at >= HEALTHY_SECONDS
            if code is not None:
                self._ended(worker, worker.process.pid, code)
        elif self._stop is None and worker.start_at is not None:
            now = self._clock()
            if now >= worker.start_at:
                worker.start_at, worker.started_at = None, now
                self._try_to_start(worker)

    def _try_to_start(self, worker: _Worker) -> None:
        facts = {"number": worker.number, "metrics_port": worker.port}
        try:
            worker.process = self._start(worker.number, worker.port)
        except OSError as error:  # no memory, or no room for another process; that may pass
            pause = self._pause(worker)
            self._log.error(
                "worker_process_not_started", **facts, error=str(error), starts_in_seconds=pause
            )
        else:
            self._log.info("worker_process_started", **facts, pid=worker.process.pid)

    def _pause(self, worker: _Worker) -> float:
        """Let the worker start again after a pause; return it, rounded for people."""
        now = self._clock()
        pause = worker.back_off.pause_seconds(now - worker.started_at)
        worker.start_at = now + pause
        return round(pause, 3)

    def _ended(self, worker: _Worker, pid: int, code: int) -> None:
        worker.process = None
        facts = {"number": worker.number, "pid": pid, "exit_code": _exit_code(code)}
        if self._stop is None and code == EXIT_CONFIG:
            self._log.error("worker_process_refused", **facts, remedy="edit the configuration")
            if not self._has_been_healthy:
                self.stop()
        if self._stop is not None:
            # One that had not begun yet has no handler: the signal itself ends it, with nothing
            # in hand. One that gave up its drain leaves with 128 + signal, as an exit code.
            has_drained = code == -signal.SIGTERM
            self._stop.exit_codes.append(0 if has_drained else _exit_code(code))
            return
        self._log.warning("worker_process_ended", **facts, starts_in_seconds=self._pause(worker))

    def _is_over(self, stop: _Stop) -> bool:
        """Pass on what was asked of us; say whether nobody is left to ask."""
        running = [worker.process for worker in self._workers if worker.process is not None]
        now = self._clock()
        if now >= stop.kill_at and not stop.is_killing:
            stop.is_killing = True
            for process in running:
                self._log.error("worker_process_killed", pid=process.pid)
                process.send_signal(signal.SIGKILL)
        while stop.n_passed_on < stop.n_signals:
            stop.n_passed_on += 1
            for process in running:
                process.send_signal(signal.SIGTERM)  # a SIGINT would be a stack trace at its start
        if now >= stop.kill_at + REAP_SECONDS:
            stop.exit_codes += [_exit_code(-signal.SIGKILL)] * len(running)
            return True
        return not running


def _exit_code(code: int) -> int:
    """Return an end as a shell shows it."""
    return 128 - code if code < 0 else code


def _overall(exit_codes: Sequence[int]) -> int:
    return EXIT_CONFIG if EXIT_CONFIG in exit_codes else max(exit_codes, default=0)
