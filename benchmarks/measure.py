"""One measurement of one contender: catching up with a log, or keeping a pace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from benchmarks.contestants import Start
from benchmarks.figures import Reading, Sample, percentiles_ms, slope
from benchmarks.processes import ROOT, CannotRun, Contender, Job
from benchmarks.stack import Stack, Topics
from benchmarks.workload import draw, encode_events
from streamer.host.tether import tethered

START_SECONDS: Final = 45.0
"""Longest wait for a contender's first event."""
FIRST_EVENTS: Final = 64
"""Sent before the pace begins; once they are applied, every partition is being read."""
KEPT_UP_SECONDS: Final = 1.0
LEFT_BEHIND_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Log:
    """A recorded log, and how long anybody may take to catch up with it."""

    topics: Topics
    n_events: int
    limit_seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Events a second and for how long; the warm-up before that is produced, but not counted."""

    rate: int
    seconds: float
    warm_up_seconds: float = 3.0

    @property
    def n_warm_up(self) -> int:
        """Events that are not counted."""
        return round(self.rate * self.warm_up_seconds)

    @property
    def all_seconds(self) -> float:
        """How long is produced."""
        return self.warm_up_seconds + self.seconds


def catch_up(
    stack: Stack, log: Log, name: str, start: Start, reading: Reading
) -> dict[str, object]:
    """Measure CPU and throughput into `reading`; return what the contender says of itself.

    Raises:
        CannotRun: It did not start, or ended.
    """
    stack.reset_redis(with_histories=name == "streamer")
    before = os.getloadavg()[0]
    with start(job_of(stack, log.topics, f"{name}-catch-up")) as contender:
        if not wait_for(contender, 1, START_SECONDS):
            raise CannotRun(f"applied nothing within {START_SECONDS:g} s")
        wait_for(contender, log.n_events, log.limit_seconds)
        samples = contender.samples()
        about = dict(contender.about())
    try:
        reading.cpu_us_per_event, reading.events_per_second = slope(busy(samples, log.n_events))
    except ValueError as error:
        raise CannotRun(str(error)) from error
    reading.load["catch_up"] = [round(before, 2), round(os.getloadavg()[0], 2)]
    return about


def busy(samples: Sequence[Sample], n_events: int) -> list[Sample]:
    """Leave out samples after the end, and the one that saw it: some of its time was idle.

    With fewer than three others the first that saw the end is kept.
    """
    before = [sample for sample in samples if sample.events < n_events]
    after = [sample for sample in samples if sample.events >= n_events]
    n_useful = sum(sample.events > 0 for sample in before)
    return before if n_useful >= 3 else [*before, *after[:1]]


def keep_pace(stack: Stack, name: str, start: Start, reading: Reading, pace: Pace) -> None:
    """Measure the delay at `pace` into `reading`.

    Raises:
        CannotRun: It did not start, or ended.
    """
    rate = str(pace.rate)
    stack.reset_redis(with_histories=name == "streamer")
    before = os.getloadavg()[0]
    job = job_of(
        stack, stack.create_topics(f"{name}-{rate}-{time.monotonic_ns()}"), f"{name}-{rate}"
    )
    assert job.trace is not None
    first = draw(stack.world, FIRST_EVENTS, round(time.time() * 1000), stream=4)
    total = FIRST_EVENTS + round(pace.rate * pace.all_seconds)
    with start(job) as contender:
        stack.produce(Topics(job.topics[0].removesuffix("-play")), encode_events(first))
        if not wait_for(contender, FIRST_EVENTS, START_SECONDS):
            raise CannotRun(f"did not read every partition within {START_SECONDS:g} s")
        _produce_at(stack, job.topics, pace)
        kept_up = wait_for(contender, total, KEPT_UP_SECONDS)
        if not kept_up:
            wait_for(contender, total, LEFT_BEHIND_SECONDS)
    delays = np.fromfile(job.trace, "<f8")[FIRST_EVENTS:]
    # Who is so far behind that the warm-up was never finished is told by what there is.
    measured = delays[pace.n_warm_up :]
    try:
        reading.latency_ms[rate] = percentiles_ms(measured if len(measured) else delays)
    except ValueError as error:
        raise CannotRun(str(error)) from error
    reading.kept_up[rate] = kept_up
    reading.load[f"latency_{rate}"] = [round(before, 2), round(os.getloadavg()[0], 2)]


def job_of(stack: Stack, topics: Topics, label: str) -> Job:
    """Return a job with a group and a folder of its own; a label of catching up traces nothing."""
    group = f"{label}-{time.monotonic_ns()}"
    folder = stack.folder / group
    folder.mkdir()
    trace = None if label.endswith("catch-up") else folder / "delays"
    return Job(
        stack.bootstrap_servers,
        topics.both,
        group,
        stack.redis_server.url,
        stack.models,
        folder,
        trace,
    )


def _produce_at(stack: Stack, topics: tuple[str, str], pace: Pace) -> None:
    told = {
        "bootstrap_servers": stack.bootstrap_servers,
        "topics": topics,
        "rate": pace.rate,
        "seconds": pace.all_seconds,
        "world": asdict(stack.world),
    }
    command = [sys.executable, "-m", "benchmarks.pacing", json.dumps(told)]
    done = subprocess.run(tethered(command), cwd=ROOT, check=True, capture_output=True, text=True)
    took = json.loads(done.stdout)["seconds"]
    if took > 1.2 * pace.all_seconds + 5:
        why = f"the producer took {took:.1f} s instead of {pace.all_seconds:g} s"
        raise CannotRun(f"{why}: the machine is too busy")


def wait_for(contender: Contender, n_events: int, timeout_seconds: float) -> bool:
    """Return whether so many events were applied in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        samples = contender.samples()
        if samples and samples[-1].events >= n_events:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
