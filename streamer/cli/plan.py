"""`streamer plan`: how many workers and how much Redis an audience needs, by measured costs."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import ceil
from typing import Any, Final

import click

from streamer.cli.plan_costs import COSTS, Audience, Plan, plan_for
from streamer.factors import FeatureDtype

_SUFFIXES: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
GIB: Final = 1 << 30


class Quantity(click.ParamType[int]):
    """``50M``, ``200k`` or a plain number."""

    name = "number"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it."""
        text = str(value).strip().lower().replace("_", "").replace(",", "")
        factor = _SUFFIXES.get(text[-1:], 1)
        try:
            number = float(text.rstrip("kmgb")) * factor
        except ValueError:
            number = 0.0
        if not 1 <= number <= 1e12:
            self.fail(f"{value!r} is not a number from 1 to 1e12, such as 200k or 50M", param, ctx)
        return round(number)


@click.command()
@click.option("--users", type=Quantity(), required=True, help="Viewers with a history: 50M.")
@click.option(
    "--events-per-second", type=Quantity(), required=True, help="At the busiest hour: 200k."
)
@click.option("--factors", type=click.IntRange(1, 1024), default=64, show_default=True)
@click.option(
    "--interactions",
    type=click.FloatRange(0, 55),
    default=20.0,
    show_default=True,
    help="Entries of a history, on average.",
)
@click.option("--variants", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--dtype", type=click.Choice(["f16", "f32"]), default="f16", show_default=True)
@click.option("--id-bytes", type=click.IntRange(1, 128), default=16, show_default=True)
@click.option("--event-bytes", type=click.IntRange(1, 65_536), default=215, show_default=True)
@click.option("--expires", is_flag=True, help="Viewers leave after inactivity.")
@click.option("--imported", is_flag=True, help="Each viewer has an imported vector.")
@click.option(
    "--utilization",
    type=click.FloatRange(0.05, 1.0),
    default=0.5,
    show_default=True,
    help="Of a core, at the busiest hour; what is left is for catching up and for failures.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(*, as_json: bool, dtype: str, **options: Any) -> None:  # noqa: ANN401  one of every type
    """Say how many workers, how much Redis and which bandwidth an audience needs.

    Applies the costs that docs/sizing.md measures, and names its assumptions. Asks nobody: it is
    arithmetic. A machine twice as fast needs half the workers; measure yours by `make bench`.
    """
    audience = Audience(dtype=FeatureDtype[dtype.upper()], **options)
    plan = plan_for(audience)
    click.echo(json.dumps(as_json_object(audience, plan)) if as_json else as_text(audience, plan))


def as_json_object(audience: Audience, plan: Plan) -> dict[str, object]:
    """Return question, answer and costs for machines."""
    asked = {**asdict(audience), "dtype": audience.dtype.name.lower()}
    return {"asked": asked, "plan": asdict(plan), "costs": asdict(COSTS)}


def as_text(audience: Audience, plan: Plan) -> str:
    """Return the answer for people."""
    lines = {
        "workers": f"{plan.n_workers:,} processes for {plan.worker_cores:,.1f} cores of work, "
        f"{plan.worker_bytes / GIB:,.2f} GiB each",
        "partitions": f"{plan.n_partitions:,} or more of each topic, so that workers can be added",
        "Redis memory": f"{plan.redis_bytes / GIB:,.1f} GiB, "
        f"{plan.redis_bytes / audience.users:,.0f} bytes a viewer, and as much again for copies "
        "while it saves",
        "Redis shards": f"{plan.n_shards:,} for {plan.redis_cores:,.1f} cores of work, each with "
        "a replica",
        "from Kafka": f"{plan.kafka_bytes_per_second / 1e6:,.1f} MB/s",
        "to Redis": f"{plan.redis_bytes_per_second / 1e6:,.1f} MB/s",
    }
    table = [f"{name:<14}{text}" for name, text in lines.items()]
    return "\n".join([*table, "", "assumes", *(f"  {each}" for each in assumptions(audience))])


def assumptions(audience: Audience) -> list[str]:
    """Return what the answer rests on."""
    return [
        f"a core of {COSTS.machine}",
        f"{audience.utilization:.0%} of a core in use at the busiest hour",
        f"one user fold an event, {ceil(audience.interactions)} entries each; larger batches "
        "while catching up need fewer",
        f"{COSTS.cache_hit_share:.0%} of the viewers of a batch are cached",
        "Redis 7.0 with jemalloc, and an append-only file",
    ]
