"""`streamer replay`: what a learner would have foreseen, on a recorded log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, RenderableType

from streamer.cli.moments import Moment
from streamer.cli.replay_progress import showing
from streamer.cli.replay_source import Source
from streamer.cli.replay_table import as_table
from streamer.config import Settings, load_settings
from streamer.evaluation.trial.capacities import MAX_CAPACITY, PLAY_CAPACITY
from streamer.evaluation.trial.learning import learn
from streamer.evaluation.trial.notebook import trained_through_of
from streamer.evaluation.trial.page import as_page
from streamer.evaluation.trial.plots import ensure_plots
from streamer.evaluation.trial.replaying import DEFAULT_K, ReplayPlan, TargetsFrom, replay_records
from streamer.evaluation.trial.targets import TargetKind
from streamer.events import EARLIEST_EVENT_TIME_MS
from streamer.factors import BUILT_INS, DEFAULT_LEARNER, ItemModel, Learner, load_learners
from streamer.models import load_model
from streamer.pipeline.records import Record
from streamer.pipeline.step import warm_up

PIPE_COLUMNS: Final = 120


class MomentOrShare(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """A moment, also in epoch milliseconds, or a share of the log: a float."""

    name = "moment or share"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> TargetsFrom:
        """Return epoch milliseconds, or a share as a float; or fail as click does."""
        if not isinstance(value, str):
            return value
        try:
            share = float(value)
        except ValueError:
            return Moment().convert(value, param, ctx)
        if share.is_integer() and share >= EARLIEST_EVENT_TIME_MS and value.isdecimal():
            return int(value)
        if not 0 <= share < 1:
            self.fail(
                f"{value!r} is no share of the log; give 0 to 1, such as 0.8, or a time", param, ctx
            )
        return share


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What the options of `streamer replay` say."""

    log: str
    since_ms: int | None
    until_ms: int | None
    config: Path | None
    model: Path
    learners: tuple[str, ...]
    targets_from: TargetsFrom | None
    targets: str
    k: int
    capacities: tuple[int, ...]
    json_path: str | None
    html_path: Path | None
    metrics: bool
    quiet: bool

    def source(self) -> Source:
        """Return where the log is read."""
        return Source(self.log, self.since_ms, self.until_ms)


@click.command()
@click.argument("log", metavar="LOG", type=click.Path())
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="The item model, a folder.",
)
@click.option(
    "--learner",
    "learners",
    multiple=True,
    metavar="NAME|MODULE:CLASS",
    shell_complete=lambda _context, _param, begun: [n for n in BUILT_INS if n.startswith(begun)],
    help="A built-in, or one's own; may be given often. Default: that of --config, else "
    f"{DEFAULT_LEARNER}.",
)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--since",
    "since_ms",
    type=Moment(),
    help="With `kafka:`, what was appended from then on: 2h, 1d ago, or a time with an offset.",
)
@click.option(
    "--until", "until_ms", type=Moment(), help="With `kafka:`, what was appended before then."
)
@click.option(
    "--targets-from",
    type=MomentOrShare(),
    metavar="TIME|SHARE",
    help="Plays later than this are foreseen, earlier events only fill histories: a time with an "
    "offset, epoch milliseconds, or a share of the log such as 0.8. Default: the model's "
    "trained_through.",
)
@click.option(
    "--targets",
    type=click.Choice([str(kind) for kind in TargetKind]),
    default=str(TargetKind.PLAYS),
    show_default=True,
    help="Foresee plays of titles that were never touched, or first contacts: a play, an opened "
    "page, a trailer.",
)
@click.option(
    "-k",
    type=click.IntRange(1, 1000),
    default=DEFAULT_K,
    show_default=True,
    help="Length of the lists: recall is the share of targets among so many titles.",
)
@click.option(
    "--capacity",
    "capacities",
    multiple=True,
    type=click.IntRange(1, MAX_CAPACITY),
    metavar="N",
    help=f"Try {DEFAULT_LEARNER} also on histories with room for N plays instead of "
    f"{PLAY_CAPACITY}, and say what they would cost; may be given often.",
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the report as JSON; - for standard output."
)
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report with plots as one page that works offline; needs streamer[replay].",
)
@click.option("--metrics/--no-metrics", default=True, help="Or only learn, to see how fast it is.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(**options: Any) -> None:  # noqa: ANN401  one of every type
    """Replay LOG: foresee each play, then learn from it, by the worker's own code.

    LOG is a file of play and browse events: one JSON object a line, or a .parquet file with a
    column for each field. Or it is `kafka:` for the configured topics, `kafka:A,B` for these.

    Beside every learner stand five baselines: popularity, trending, vectors that stay as they
    were (static), vectors of the last midnight (nightly), and vectors of everything without
    recency (full_history).
    """
    request = ReplayRequest(**options)
    _ensure_paths(request)
    model = load_model(request.model)
    source = request.source()
    needs_settings = source.is_kafka or request.config is not None
    settings = load_settings(request.config) if needs_settings else None
    learners = _learners(request.learners, settings)
    with showing(quiet=request.quiet) as show:
        if not request.metrics:
            answer, text = _learn_only(source.records(settings, show), model, learners)
            _tell(request, answer, text)
            return
        plan = ReplayPlan(
            model,
            learners,
            _targets_from(request),
            request.k,
            TargetKind(request.targets),
            request.capacities,
        )
        report = replay_records(source.records(settings, show), plan, show)
    if request.html_path is not None:
        _write(request.html_path, as_page(report))
    _tell(request, report.to_json(), as_table(report))


def _tell(request: ReplayRequest, answer: dict[str, Any], text: RenderableType) -> None:
    if request.json_path == "-":
        click.echo(json.dumps(answer))
        return
    if request.json_path is not None:
        _write(Path(request.json_path), json.dumps(answer) + "\n")
    # A pipe has no width of its own that could be too narrow.
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False).print(text)


def _ensure_paths(request: ReplayRequest) -> None:
    """Refuse what would fail at the end of the work, before its beginning."""
    request.source().ensure_sound()
    json_path = None if request.json_path in {None, "-"} else Path(str(request.json_path))
    for path in (json_path, request.html_path):
        if path is not None and not path.parent.is_dir():
            raise click.BadParameter(f"{path}: there is no folder {path.parent}")
    if request.html_path is not None and request.metrics:
        ensure_plots()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from error


def _learners(specs: tuple[str, ...], settings: Settings | None) -> dict[str, Learner]:
    default = DEFAULT_LEARNER if settings is None else settings.models.learner
    loaded = load_learners(specs or (default,))
    return {learner.name: learner for learner in loaded.values()}


def _targets_from(request: ReplayRequest) -> TargetsFrom:
    if request.targets_from is not None:
        return request.targets_from
    return trained_through_of(request.model)


def _learn_only(
    records: Iterator[Record], model: ItemModel, learners: dict[str, Learner]
) -> tuple[dict[str, Any], str]:
    """Learn, and say how fast that was."""
    if len(learners) > 1:
        raise click.UsageError("--no-metrics takes one learner")
    (learner,) = learners.values()
    warm_up(learner)  # compiling is not learning
    started = time.perf_counter()
    learned = learn(records, model, learner)
    seconds = time.perf_counter() - started
    rate = learned.n_events / seconds if seconds else 0.0
    answer = {
        "events": learned.n_events,
        "viewers": learned.n_users,
        "folded_in": learned.n_folded,
        "fold_in_rejected": learned.n_fold_rejected,
        "rejected": learned.rejected,
        "seconds": round(seconds, 3),
        "events_per_second": round(rate),
    }
    return answer, (
        f"{learned.n_events:,} events of {learned.n_users:,} viewers learned in {seconds:.2f} s: "
        f"{rate:,.0f} events/s; {sum(learned.rejected.values()):,} bad records skipped"
    )
