"""`streamer worker`: the long-lived process, or several of them under a supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import click
import structlog

from streamer.config import MetricsSection, Settings, load_settings
from streamer.errors import ConfigError
from streamer.host.ports import free_ports
from streamer.host.tether import tethered
from streamer.log import configure_logging
from streamer.runtime.guards import CLOSE_SECONDS
from streamer.runtime.supervisor import Supervisor, SupervisorParts

MAX_PROCESSES: Final = 256
MAX_PORT: Final = 65_535
PORT_VARIABLE: Final = "STREAMER__METRICS__PORT"
WILDCARDS: Final = {"0.0.0.0", "::"}  # noqa: S104  recognised, not listened on


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--wait", is_flag=True, help="Wait for an unreachable Kafka or Redis instead of exit 69."
)
@click.option(
    "--processes",
    type=click.IntRange(1, MAX_PROCESSES),
    metavar="N",
    help="Run N worker processes and start again what dies. Metrics ports: [metrics] port and "
    "the N - 1 after it; free ones for 0.",
)
@click.option(
    "--targets",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --processes: write the metrics addresses to FILE, for Prometheus's file_sd_configs.",
)
@click.option("--number", type=int, hidden=True)
def command(
    config: Path | None,
    wait: bool,
    processes: int | None,
    targets: Path | None,
    number: int | None,
) -> None:
    """Keep every viewer's features fresh, until SIGTERM.

    Without a file, STREAMER__KAFKA__BOOTSTRAP_SERVERS, STREAMER__REDIS__URL and
    STREAMER__MODELS__DIRECTORY are enough. It is always safe to kill and restart: an event is
    acknowledged only after its effect is in Redis, and learning it twice changes nothing.
    """
    if targets is not None and processes is None:
        raise click.UsageError("--targets needs --processes")
    settings = load_settings(config)
    labels = {} if number is None else {"number": number}
    configure_logging(settings.log.level, settings.log.format, **labels)
    if processes is not None:
        ports = worker_ports(settings.metrics, processes)
        if targets is not None:
            write_targets(targets, settings.metrics.host, ports)
        options = ["--wait"] * wait + ([] if config is None else ["--config", str(config)])
        sys.exit(_supervise(settings, ports, options))
    from streamer.app import build_worker  # noqa: PLC0415  after the settings: they fail fast

    build_worker(settings).run(wait=wait)


def worker_ports(section: MetricsSection, count: int) -> list[int]:
    """Return a metrics port for each worker.

    Raises:
        ConfigError: There are not so many ports.
    """
    if section.port == 0:
        try:
            return free_ports(count, section.host)
        except OSError as error:
            raise ConfigError(f"[metrics] host: {error}") from error
    if section.port + count - 1 > MAX_PORT:
        raise ConfigError(
            f"[metrics] port: {count} processes need the ports {section.port} to "
            f"{section.port + count - 1}; the last one there is is {MAX_PORT}"
        )
    return list(range(section.port, section.port + count))


def write_targets(path: Path, host: str, ports: Sequence[int]) -> None:
    """Write the addresses as Prometheus reads them; it never sees half a file.

    Raises:
        ConfigError: The file cannot be written.
    """
    name = socket.gethostname() if host in WILDCARDS else host
    text = json.dumps([{"targets": [f"{name}:{port}" for port in ports]}])
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"--targets {path}: cannot be written: {error.strerror}") from error


def worker_environ(environ: Mapping[str, str], port: int) -> dict[str, str]:
    """Return the environment of a worker: ours, with its metrics port in whatever spelling."""
    others = {
        name: value
        for name, value in environ.items()
        if name.upper().removesuffix("_FILE") != PORT_VARIABLE
    }
    return {**others, PORT_VARIABLE: str(port)}


def _supervise(settings: Settings, ports: Sequence[int], options: Sequence[str]) -> int:
    log: structlog.stdlib.BoundLogger = structlog.get_logger()

    def start(number: int, port: int) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "streamer", "worker", *options, "--number", str(number)]
        return subprocess.Popen(
            tethered(program),
            env=worker_environ(os.environ, port),
            stdin=subprocess.DEVNULL,
            # Ctrl-C is for us alone: a second signal would end a worker before it has drained.
            start_new_session=True,
        )

    supervisor = Supervisor(
        SupervisorParts(start, time.monotonic, time.sleep, Random(), log),
        ports,
        settings.worker.drain_timeout_seconds + CLOSE_SECONDS,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    log.info("supervisor_started", processes=len(ports), metrics_ports=list(ports))
    return supervisor.run()
