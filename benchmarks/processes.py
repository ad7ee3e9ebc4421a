"""Contenders as processes: the real worker, scraped, and programs that print what they did."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.figures import Sample
from streamer import __version__
from streamer.host.ports import LOOPBACK, free_ports
from streamer.host.tether import tethered

ROOT: Final = Path(__file__).parent.parent
PEERS: Final = ROOT / ".venv-peers" / "bin" / "python"
STOP_SECONDS: Final = 20.0
SCRAPE_SECONDS: Final = 0.15
LOG_TAIL: Final = 600


class CannotRun(Exception):
    """A contender is not there, or ended by itself; says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one contender.

    Attributes:
        bootstrap_servers: Of Kafka.
        topics: Of plays and of browsing.
        group: A consumer group that nobody used before.
        redis_url: Where to write.
        models: Where item models are published; streamer alone needs it.
        folder: For its log; must exist.
        trace: For its delays, None while catching up.
    """

    bootstrap_servers: str
    topics: tuple[str, str]
    group: str
    redis_url: str
    models: Path
    folder: Path
    trace: Path | None = None


class Contender(Protocol):
    """A running contender."""

    def samples(self) -> list[Sample]:
        """Return all samples so far; raises CannotRun if it has ended."""
        ...

    def about(self) -> dict[str, Any]:
        """Return version and settings."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class _Process:
    """A program with a log file, ended when the block is left."""

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str],
        *,
        is_read: bool = False,
    ) -> None:
        self.log_path = log_path
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                tethered(command),
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if is_read else log,
                stderr=log,
            )

    def ensure_running(self) -> None:
        if self.process.poll() is not None:
            tail = self.log_path.read_text(errors="replace").strip()[-LOG_TAIL:]
            raise CannotRun(f"ended with {self.process.returncode}: {tail or 'it said nothing'}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class Program(_Process):
    """A program of `benchmarks.contenders`, which prints a JSON object a line."""

    def __init__(self, module: str, arguments: Sequence[str], job: Job, python: Path) -> None:
        if not python.exists():
            raise CannotRun(f"{python} is not there")
        told = {
            "bootstrap_servers": job.bootstrap_servers,
            "topics": job.topics,
            "group": job.group,
            "redis_url": job.redis_url,
            "trace": None if job.trace is None else str(job.trace),
        }
        command = [str(python), "-m", f"benchmarks.contenders.{module}", json.dumps(told)]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        log_path = job.folder / f"{module}.log"
        super().__init__([*command, *arguments], log_path, environment, is_read=True)
        self._about: dict[str, Any] = {}
        self._samples: list[Sample] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.startswith(b"{"):
                continue  # a library that speaks on stdout
            said = json.loads(line)
            if "t" in said:
                self._samples.append(Sample(said["t"], said["events"], said["cpu"]))
            else:
                self._about = said

    def samples(self) -> list[Sample]:
        """Return all samples so far; raises CannotRun if it has ended."""
        self.ensure_running()
        return list(self._samples)

    def stop(self) -> None:
        """End it, and read what it said last."""
        super().stop()
        self._reader.join(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def about(self) -> dict[str, Any]:
        """Return version and settings, as it said."""
        return self._about


class Workers:
    """One or several real `streamer worker` processes in one group, scraped."""

    def __init__(self, job: Job, n_processes: int = 1, settings: Mapping[str, str] = {}) -> None:
        self._ports = free_ports(n_processes)
        self._settings = dict(settings)
        self._samples: list[Sample] = []
        self._processes = [
            _Process(
                [str(Path(sys.executable).with_name("streamer")), "worker"],
                job.folder / f"worker{number}.log",
                worker_environment(job, port, self._settings),
            )
            for number, port in enumerate(self._ports)
        ]

    @property
    def process_ids(self) -> list[int]:
        """Of the workers."""
        return [process.process.pid for process in self._processes]

    def samples(self) -> list[Sample]:
        """Scrape every worker once, add what they did up, and return all samples so far."""
        time.sleep(SCRAPE_SECONDS)  # the interval; a scrape costs the worker some CPU
        for process in self._processes:
            process.ensure_running()
        answers = [answer for port in self._ports if (answer := _scrape(port)) is not None]
        if len(answers) == len(self._ports):
            events = sum(count for count, _ in answers)
            cpu = sum(seconds for _, seconds in answers)
            self._samples.append(Sample(time.monotonic(), events, cpu))
        return list(self._samples)

    def about(self) -> dict[str, Any]:
        """Return version and settings."""
        settings = self._settings or {"all": "defaults"}
        return {"version": f"streamer {__version__}", "settings": settings}

    def stop(self) -> None:
        """End them all."""
        for process in self._processes:
            process.process.terminate()
        for process in self._processes:
            process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def worker_environment(job: Job, port: int, settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with a worker's settings, and no others of streamer."""
    wanted = {
        "kafka.bootstrap_servers": job.bootstrap_servers,
        "kafka.group_id": job.group,
        "kafka.play_topic": job.topics[0],
        "kafka.browse_topic": job.topics[1],
        "redis.url": job.redis_url,
        "models.directory": str(job.models),
        "metrics.port": str(port),
        "log.format": "json",
        **settings,
    }
    if job.trace is not None:
        wanted["metrics.delay_trace"] = str(job.trace)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    return clean | {
        "STREAMER__" + name.replace(".", "__").upper(): value for name, value in wanted.items()
    }


def _scrape(port: int) -> tuple[int, float] | None:
    """Return applied events and CPU seconds, None while the worker does not answer yet."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()
    totals = {"streamer_events_applied_total": 0.0, "process_cpu_seconds_total": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in totals:
                totals[sample.name] += sample.value
    return int(totals["streamer_events_applied_total"]), totals["process_cpu_seconds_total"]
