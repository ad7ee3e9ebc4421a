"""Rounds: every contender in turn, again and again, so that a busy minute hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contestants import Start
from benchmarks.figures import Reading, summarize
from benchmarks.measure import Log, Pace, catch_up, keep_pace
from benchmarks.processes import CannotRun
from benchmarks.stack import Stack


@dataclass(slots=True)
class Entry:
    """One contender over all rounds.

    Attributes:
        about: Its version and settings.
        readings: One a round; a round that failed counts up to where it failed.
        error: Why it was left out, from the first failure on; None if it never failed.
    """

    about: dict[str, Any] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: At least 1.
        n_events: Of the recorded log.
        latency_seconds: At each rate, beyond the warm-up; 0 leaves the delay out.
        warm_up_seconds: Before that, at each rate.
        rates: Events a second.
        limit_seconds: For catching up; the slow are measured as far as they get.
        memory_users: For what a viewer costs in Redis.
        cached_users: For what a viewer costs in a worker; fewer drown in its other memory.
        fold_sizes: Numbers of users among whom single users are folded in.
        fold_items: Numbers of items with which they are.
        fold_events: Folds of one such measurement.
        large_items: Of a model that is loaded.
    """

    rounds: int = 3
    n_events: int = 400_000
    latency_seconds: float = 8.0
    warm_up_seconds: float = 3.0
    rates: tuple[int, ...] = (2_000, 10_000)
    limit_seconds: float = 15.0
    memory_users: int = 10_000
    cached_users: int = 100_000
    fold_sizes: tuple[int, ...] = (10_000, 200_000, 2_000_000)
    fold_items: tuple[int, ...] = (1_000, 20_000, 1_000_000)
    fold_events: int = 150_000
    large_items: int = 1_000_000


def record_log(stack: Stack, plan: Plan) -> Log:
    """Write the log that everybody catches up with."""
    topics = stack.create_topics("log")
    stack.record(topics, plan.n_events)
    return Log(topics, plan.n_events, plan.limit_seconds)


def run_rounds(
    stack: Stack, log: Log, contenders: Mapping[str, Start], plan: Plan, say: Callable[[str], None]
) -> dict[str, Entry]:
    """Run everybody in turn, the order rotated from round to round; nobody's failure ends it."""
    entries = {name: Entry() for name in contenders}
    for number in range(plan.rounds):
        for name in rotated(list(contenders), number):
            if entries[name].error is None:
                say(f"round {number + 1} of {plan.rounds}: {name}")
                _run_once(stack, log, name, contenders[name], entries[name], plan)
                if (reason := entries[name].error) is not None:
                    say(f"LEFT OUT: {name}: {reason}")
    return entries


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Return the names, beginning with another one: no place in a round is better than others."""
    start = by % len(names)
    return [*names[start:], *names[:start]]


def _run_once(stack: Stack, log: Log, name: str, start: Start, entry: Entry, plan: Plan) -> None:
    reading = Reading()
    entry.readings.append(reading)
    try:
        entry.about = catch_up(stack, log, name, start, reading)
        if plan.latency_seconds:
            for rate in plan.rates:
                keep_pace(
                    stack,
                    name,
                    start,
                    reading,
                    Pace(rate, plan.latency_seconds, plan.warm_up_seconds),
                )
    except CannotRun as error:
        entry.error = str(error)


def contender_json(entry: Entry) -> dict[str, Any]:
    """Return a contender's part of the report."""
    about = {"version": None, **entry.about} | summarize(entry.readings)
    return about if entry.error is None else about | {"error": entry.error}
