"""The demo's worker processes, and what they say of themselves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from streamer.errors import StreamerError
from streamer.host.tether import tethered

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 20.0


class DemoWorker:
    """One `streamer worker` process."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str]) -> None:
        """Start it; its log and its delay trace go into `folder`."""
        self.name = name
        self._log = folder / f"{name}.log"
        self._trace = folder / f"{name}.delays"
        self._trace.touch()
        self._n_read = 0
        self._port = 0
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                tethered([sys.executable, "-m", "streamer", "worker"]),
                env={
                    **environ,
                    "STREAMER__METRICS__PORT": "0",
                    "STREAMER__METRICS__DELAY_TRACE": str(self._trace),
                    "STREAMER__LOG__FORMAT": "json",
                },
                stdout=log,
                stderr=log,
            )

    def wait_until_assigned(self) -> None:
        """Return when it owns partitions."""
        wait_until(lambda: self.totals()["streamer_partitions_assigned"] > 0, self.name)

    def totals(self) -> Counter[str]:
        """Return each metric, summed over its labels; zeros before it answers."""
        totals: Counter[str] = Counter()
        for name, _, value in self.samples():
            totals[name] += value  # type: ignore[assignment]  # a sum of floats
        return totals

    def samples(self) -> list[tuple[str, Mapping[str, str], float]]:
        """Scrape it; empty before it listens.

        Raises:
            StreamerError: It has ended.
        """
        if self._process.poll() is not None:
            tail = self._log.read_text()[-2000:]
            raise StreamerError(f"{self.name} ended with {self._process.returncode}:\n{tail}")
        if not self._find_port():
            return []
        with urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as response:
            text = response.read().decode()
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def new_delays(self) -> NDArray[np.float64]:
        """Return the delays, in seconds, of the records applied since the last call."""
        with self._trace.open("rb") as trace:
            trace.seek(self._n_read)
            data = trace.read()
        data = data[: len(data) - len(data) % 8]
        self._n_read += len(data)
        return np.frombuffer(data, "<f8")

    def stop(self) -> None:
        """Ask it to drain, and wait for it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _find_port(self) -> bool:
        if not self._port:
            for line in self._log.read_text().splitlines():
                if '"worker_started"' in line:
                    self._port = int(json.loads(line)["metrics_port"])
        return self._port != 0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait for a condition.

    Raises:
        StreamerError: It did not come true in time.
    """
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise StreamerError(f"{what}: not ready after {seconds:g} s")
        time.sleep(0.05)
