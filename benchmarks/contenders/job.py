"""What a contender is told, and what it tells: samples on stdout, delays in a file.

A contender prints one JSON object a line: first who it is, then samples of what it has done. It
goes on until SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """One run of one contender.

    Attributes:
        bootstrap_servers: Of Kafka.
        topics: To consume, from the beginning.
        group: A consumer group that nobody used before.
        redis_url: Where to write.
        trace: File for the delays, None while catching up.
    """

    bootstrap_servers: str
    topics: Sequence[str]
    group: str
    redis_url: str
    trace: str | None

    @classmethod
    def from_arguments(cls) -> Job:
        """Read the job from the only argument, a JSON object."""
        return cls(**json.loads(sys.argv[1]))


class Progress:
    """Reports what was acknowledged by Redis; call `applied` right after the write's answer."""

    def __init__(self, job: Job, packages: Sequence[str], settings: Mapping[str, object]) -> None:
        # Open as long as the process lives.
        self._trace = Path(job.trace).open("ab", buffering=0) if job.trace else None  # noqa: SIM115
        # A stream of its own: Faust turns what is printed into log lines.
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        self._n_events = 0
        self._n_said = 0
        self._next_sample = 0.0
        versions = ", ".join(f"{name} {version(name)}" for name in packages)
        self._say({"version": versions, "settings": dict(settings)})
        threading.Thread(target=self._say_the_rest, daemon=True).start()

    def applied(self, timestamps_ms: Sequence[int]) -> None:
        """Note that these events, by their record timestamps, are readable in Redis now."""
        if self._trace is not None:
            delays = time.time() - np.array(timestamps_ms, np.float64) / 1000
            self._trace.write(np.maximum(delays, 0.0).astype("<f8").tobytes())
        self._n_events += len(timestamps_ms)
        now = time.monotonic()
        if now >= self._next_sample:
            self._sample(now)

    def _sample(self, now: float) -> None:
        self._next_sample = now + SAMPLE_SECONDS
        self._n_said = self._n_events
        # process_time counts every thread of this process, also those of client libraries.
        self._say({"t": now, "events": self._n_said, "cpu": time.process_time()})

    def _say_the_rest(self) -> None:
        """Tell of the last events, after which no batch comes that would."""
        while True:
            time.sleep(2 * SAMPLE_SECONDS)
            now = time.monotonic()
            if self._n_events > self._n_said and now >= self._next_sample + SAMPLE_SECONDS:
                self._sample(now)

    def _say(self, message: Mapping[str, object]) -> None:
        print(json.dumps(message), file=self._out, flush=True)
