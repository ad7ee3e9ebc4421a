"""`streamer demo`: everything at once on a local stack, in under 90 seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click
from rich.console import Console
from rich.live import Live

from streamer.cli.demo_judge import Judge
from streamer.cli.demo_show import LiveView, last_lines
from streamer.cli.demo_workers import DemoWorker, wait_until
from streamer.cli.learners import complete_learner
from streamer.config import Settings, load_settings
from streamer.dev.kafka_producer import KafkaTarget, connect_sender
from streamer.dev.stack import KafkaChoice, LocalStack
from streamer.dev.traffic import generate
from streamer.dev.traffic_plan import TrafficPlan, plan_history
from streamer.errors import StreamerError
from streamer.factors import DEFAULT_LEARNER, load_learner
from streamer.host.tether import tethered
from streamer.kafka.topics import create_topics, open_admin, topic_specs

N_WORKERS: Final = 2
N_PARTITIONS: Final = 4
N_PAST_EVENTS: Final = 60_000
SETTLE_SECONDS: Final = 30.0
KEEP_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo: where things are."""

    folder: Path
    stack: LocalStack
    settings: Settings
    ours: Mapping[str, str]
    environ: Mapping[str, str]
    console: Console


@click.command()
@click.option(
    "--rate", type=click.FloatRange(10, 20_000), default=2000, show_default=True, help="Events/s."
)
@click.option(
    "--seconds",
    type=click.FloatRange(2, 600),
    default=20,
    show_default=True,
    help="How long.",
)
@click.option(
    "--kafka",
    type=click.Choice(["auto", "real", "mock"]),
    default="auto",
    show_default=True,
    help="Which Kafka to start.",
)
@click.option(
    "--learner",
    default=DEFAULT_LEARNER,
    show_default=True,
    metavar="LEARNER",
    shell_complete=complete_learner,
    help="What viewers are folded in by; `streamer learners list` shows them.",
)
@click.option("--keep", is_flag=True, help="Go on producing until Ctrl-C.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Also write the result as JSON.",
)
@click.pass_context
def command(  # noqa: PLR0913, PLR0917  one for each option
    context: click.Context,
    rate: float,
    seconds: float,
    kafka: KafkaChoice,
    learner: str,
    keep: bool,
    json_path: Path | None,
) -> None:
    """Everything at once on a local stack, in under 90 seconds.

    Starts Kafka and Redis, trains and publishes a small model, runs two workers, lets synthetic
    viewers watch, and checks the outcome: nothing lost, nothing twice, every vector right. Exit 1
    if anything is wrong. Servers, data and processes are gone afterwards.
    """
    load_learner(learner)  # a wrong name is told before anything starts
    console = Console()
    signal.signal(signal.SIGTERM, _leave)  # like Ctrl-C: with everything cleaned up
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="streamer-demo-")))
        console.print("starting Kafka and Redis ...")
        stack = cleanup.enter_context(LocalStack.start(kafka))
        demo = _demo(folder, stack, console, learner)
        console.print(f"  {stack.kafka_name} and Redis {stack.redis_version}")
        past = plan_history(N_PAST_EVENTS)
        _train(demo, past)
        workers = _start_workers(demo, cleanup)
        _catch_up(demo, workers, past)
        judge = Judge(settings=demo.settings, live_from_ms=int(time.time() * 1000))
        judge.look_before(record.key for record in generate(past))
        view = _go_live(demo, workers, rate, seconds)
        console.print("recomputing every viewer from the log ...")
        result = {
            **view.balance(),
            **judge.verdict(console),
            "kafka": stack.kafka_name,
            "redis": stack.redis_version,
        }
        console.print("\n".join(["", *last_lines(result)]), highlight=False, soft_wrap=True)
        if json_path is not None:
            json_path.write_text(json.dumps(result) + "\n", encoding="utf-8")
        if keep:
            _keep(demo, view, rate)
    if result["produced"] != result["applied"] + result["dead_lettered"]:
        context.exit(1)
    if result["verify"]["different"]:
        context.exit(1)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _demo(folder: Path, stack: LocalStack, console: Console, learner: str) -> Demo:
    """Configure everything for this stack alone, whatever the environment says."""
    ours = {
        "STREAMER__KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "STREAMER__REDIS__URL": stack.redis_url,
        "STREAMER__MODELS__DIRECTORY": str(folder / "models"),
        "STREAMER__MODELS__LEARNER": learner,
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER__")}
    return Demo(folder, stack, load_settings(None, ours), ours, {**inherited, **ours}, console)


def _train(demo: Demo, past: TrafficPlan) -> None:
    demo.console.print(f"training an item model on {past.n_records:,} events of the past ...")
    log, model = demo.folder / "past.jsonl", demo.folder / "trained"
    with log.open("wb") as file:
        file.writelines(record.value + b"\n" for record in generate(past))
    trained = json.loads(_run(demo, "model", "train", str(log), str(model), "--json", "--quiet"))
    _run(demo, "model", "publish", str(model))
    demo.console.print(
        f"  {trained['n_items']:,} titles, {trained['n_factors']} factors, in "
        f"{trained['seconds']:.1f} s; published as {trained['model_id']}"
    )


def _start_workers(demo: Demo, cleanup: ExitStack) -> list[DemoWorker]:
    kafka = demo.settings.kafka
    if demo.stack.kafka_name != "librdkafka-mock":
        admin = open_admin({**kafka.client, "bootstrap.servers": kafka.bootstrap_servers})
        specs = topic_specs(
            kafka.topics,
            kafka.dead_letter_suffix,
            partitions=N_PARTITIONS,
            replication=1,
            retention_days=1,
        )
        create_topics(admin, specs)
    demo.console.print(f"starting {N_WORKERS} workers ...")
    workers = []
    for number in range(1, N_WORKERS + 1):
        worker = DemoWorker(f"worker-{number}", demo.folder, demo.environ)
        cleanup.callback(worker.stop)
        workers.append(worker)
    for worker in workers:
        worker.wait_until_assigned()
    return workers


def _catch_up(demo: Demo, workers: list[DemoWorker], past: TrafficPlan) -> None:
    """Give the viewers a past, as a backlog."""
    kafka = demo.settings.kafka
    target = KafkaTarget(
        kafka.bootstrap_servers, kafka.play_topic, kafka.browse_topic, kafka.client
    )
    sender = connect_sender(target)
    started = time.monotonic()
    for record in generate(past):
        while not sender.send(record):
            sender.serve(0.05)
    sender.drain(SETTLE_SECONDS)
    wait_until(
        lambda: LiveView(workers).n_settled() >= past.n_records, "the workers", SETTLE_SECONDS
    )
    seconds = time.monotonic() - started
    demo.console.print(
        f"  the viewers' past: {past.n_records:,} events applied {seconds:.1f} s after the first "
        "was produced"
    )


def _go_live(demo: Demo, workers: list[DemoWorker], rate: float, seconds: float) -> LiveView:
    """Let viewers watch, under a live table, until everything they did is applied."""
    view = LiveView(workers)
    view.begin()
    n_before = view.n_settled()
    with (
        _producing(demo, "--rate", str(rate), "--seconds", str(seconds), "--json") as producer,
        Live(view.look(), console=demo.console, refresh_per_second=4) as live,
    ):
        while producer.poll() is None:
            time.sleep(0.25)
            live.update(view.look())
        view.n_produced = n_before + json.loads(producer.communicate()[0])["produced"]
        wait_until(lambda: view.n_settled() >= view.n_produced, "the workers", SETTLE_SECONDS)
        live.update(view.look())
    return view


def _keep(demo: Demo, view: LiveView, rate: float) -> None:
    """Go on until Ctrl-C."""
    demo.console.print("\ngoing on until Ctrl-C; in another terminal:")
    for name, value in demo.ours.items():
        demo.console.print(f"  export {name}={value}", highlight=False, soft_wrap=True)
    demo.console.print(f"  {sys.argv[0]} get viewer-000007", highlight=False)
    try:
        with (
            _producing(demo, "--rate", str(rate), "--seconds", str(KEEP_SECONDS)) as producer,
            Live(view.look(), console=demo.console, refresh_per_second=2) as live,
        ):
            while producer.poll() is None:
                time.sleep(0.5)
                live.update(view.look())
    except KeyboardInterrupt:
        demo.console.print("stopping ...")


@contextmanager
def _producing(demo: Demo, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    producer = subprocess.Popen(
        tethered([sys.executable, "-m", "streamer", "produce", "--quiet", *options]),
        env=demo.environ,
        stdout=subprocess.PIPE,
    )
    with producer:
        try:
            yield producer
        finally:
            if producer.poll() is None:
                producer.send_signal(signal.SIGTERM)


def _run(demo: Demo, *verb: str) -> str:
    """Run one of our own verbs and return what it prints.

    Raises:
        StreamerError: It failed; its complaint was printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "streamer", *verb],
        env=demo.environ,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise StreamerError(f"streamer {' '.join(verb[:2])} exited with {done.returncode}")
    return done.stdout.decode()
