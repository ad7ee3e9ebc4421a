"""Progress of a command that works in stages: one bar each on a terminal, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

OnProgress = Callable[[str, int, int], None]
"""Told about a stage, what is done, and of how much; 0 for nobody knows."""


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[OnProgress]:
    """Yield what to tell the progress to; the bars vanish at the end."""
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total or None)
        bars.update(tasks[stage], completed=done, total=total or None)

    with bars:
        yield show
