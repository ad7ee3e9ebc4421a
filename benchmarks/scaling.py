"""Does an event cost more where two workers share the log?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.figures import Reading, spread
from benchmarks.measure import Log, catch_up
from benchmarks.processes import Job, Workers
from benchmarks.stack import Stack


def measure_scaling(
    stack: Stack, log: Log, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return CPU per event and throughput of one process and of two, measured in turn.

    Raises:
        CannotRun: A worker ended.
    """
    readings: dict[int, list[Reading]] = {1: [], 2: []}
    for number in range(rounds):
        for n_processes, found in readings.items():
            say(f"scaling, round {number + 1} of {rounds}: {n_processes} worker(s)")
            found.append(Reading())
            catch_up(stack, log, "streamer", _workers(n_processes), found[-1])
    cpu = {n: spread([r.cpu_us_per_event or 0.0 for r in found]) for n, found in readings.items()}
    rate = {n: spread([r.events_per_second or 0.0 for r in found]) for n, found in readings.items()}
    return {
        "cpu_us_per_event": {"one_process": cpu[1], "two_processes": cpu[2]},
        "events_per_second": {"one_process": rate[1], "two_processes": rate[2]},
        "cpu_ratio": round(cpu[2]["median"] / cpu[1]["median"], 3),
    }


def _workers(n_processes: int) -> Callable[[Job], Workers]:
    return lambda job: Workers(job, n_processes)
