"""``python -m benchmarks``, which is `make bench`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.contestants import CONTENDERS
from benchmarks.folds import measure_folds
from benchmarks.machine import describe_machine
from benchmarks.memory import measure_memory
from benchmarks.plot import plot
from benchmarks.processes import CannotRun
from benchmarks.report import tables_of
from benchmarks.rounds import Plan, contender_json, record_log, run_rounds
from benchmarks.scaling import measure_scaling
from benchmarks.serving import measure_serving
from benchmarks.stack import Stack, running_stack
from benchmarks.workload import World

RESULTS = Path(__file__).parent / "results" / "latest.json"
QUICK = Plan(
    rounds=1,
    n_events=60_000,
    latency_seconds=2.0,
    warm_up_seconds=1.0,
    rates=(2_000,),
    limit_seconds=4.0,
    memory_users=1_000,
    cached_users=40_000,
    fold_sizes=(10_000, 50_000),
    fold_items=(1_000, 20_000),
    large_items=100_000,
    fold_events=20_000,
)
QUICK_WORLD = World(n_past_events=300_000)
DEFAULTS = Plan()


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=DEFAULTS.rounds, show_default=True)
@click.option("--events", type=click.IntRange(10_000), default=DEFAULTS.n_events, show_default=True)
@click.option("--contenders", metavar="A,B", default=",".join(CONTENDERS), show_default=True)
@click.option(
    "--latency-seconds",
    type=click.FloatRange(0),
    default=DEFAULTS.latency_seconds,
    show_default=True,
    help="At each rate; 0 leaves the delay out.",
)
@click.option(
    "--json", "path", type=click.Path(path_type=Path), default=RESULTS, help="Where to, and plots."
)
@click.option("--quick", is_flag=True, help="One small round, to see that everything runs.")
def command(
    rounds: int, events: int, contenders: str, latency_seconds: float, path: Path, quick: bool
) -> None:
    """Measure every contender in turn and print medians, spread, and times the floor."""
    names = contenders.split(",")
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise click.BadParameter(f"{unknown}; there are {', '.join(CONTENDERS)}")
    plan = QUICK if quick else Plan(rounds, events, latency_seconds)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, console.status("") as status:

        def say(message: str) -> None:
            console.log(message)
            status.update(message)

        with running_stack(Path(folder), say) as stack:
            say("writing the model, and the histories that viewers start with")
            stack.prepare(QUICK_WORLD if quick else World())
            report = measure(stack, names, plan, say)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for part in tables_of(report):
        console.print(part)
    for file in [path, *plot(report, path)]:
        console.print(f"wrote {file}", highlight=False)


def measure(
    stack: Stack, names: Sequence[str], plan: Plan, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the whole report, on a stack that is prepared."""
    servers = {"kafka": stack.kafka.name, "redis": stack.redis_server.version}
    report: dict[str, Any] = {"machine": describe_machine() | servers, "plan": asdict(plan)}
    say(f"recording {plan.n_events:,} events")
    log = record_log(stack, plan)
    chosen = {name: CONTENDERS[name] for name in names}
    entries = run_rounds(stack, log, chosen, plan, say)
    report["contenders"] = {name: contender_json(entry) for name, entry in entries.items()}
    if "streamer" in names:
        report["scaling"] = _or_why_not(lambda: measure_scaling(stack, log, plan.rounds, say), say)
        report["scaling"]["user_folds"] = _or_why_not(
            lambda: measure_folds(stack, plan.fold_sizes, plan.fold_items, plan.fold_events, say),
            say,
        )
        report["serving"] = _or_why_not(
            lambda: measure_serving(stack, log, plan.large_items, say), say
        )
        say("memory of a viewer")
        report["memory"] = _or_why_not(
            lambda: measure_memory(stack, plan.memory_users, plan.cached_users), say
        )
    return report


def _or_why_not(section: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> Any:  # noqa: ANN401  JSON
    try:
        return section()
    except CannotRun as error:
        say(f"LEFT OUT: {error}")
        return {"error": str(error)}


if __name__ == "__main__":
    command()
