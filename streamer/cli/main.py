"""`streamer`: one verb a module, loaded only when it is called, so that ``--help`` is instant."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from streamer import __version__
from streamer.errors import ConfigError, RestartNeeded, StreamerError, TransientError

EXIT_FAILURE: Final = 1
EXIT_UNAVAILABLE: Final = 69
EXIT_TEMPORARY: Final = 75
EXIT_CONFIG: Final = 78

VERBS: Final = {
    "worker": "Keep every viewer's features fresh: the long-lived process.",
    "produce": "Write synthetic viewers' events to Kafka, or to a file.",
    "get": "Show one viewer: history, features, top titles.",
    "rewind": "Let the workers read a stretch of the log again.",
    "verify": "Recompute every viewer from the log and compare with Redis.",
    "dlq": "List, show and redrive dead letters.",
    "forget": "Forget one viewer for good, and show the receipt.",
    "replay": "Foresee each play of a recorded log, then learn from it: how good is a learner?",
    "model": "Train, import, check, show, publish and roll back item models.",
    "users": "Import viewers' long-term vectors that were trained elsewhere.",
    "learners": "Show the learners, and check one's own.",
    "experiments": "Check experiments, see what they have shown, promote and roll back.",
    "topics": "Create the topics, with the settings the guarantees rely on.",
    "plan": "Say how many workers and how much Redis an audience needs.",
    "config": "Show every effective setting and where it came from.",
    "dev": "Start Kafka and Redis on this machine, without Docker.",
    "demo": "Everything at once on a local stack, in under 90 seconds.",
}


class LazyGroup(click.Group):
    """Lists its verbs from a table and imports a verb's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Every verb, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import ``streamer.cli.VERB`` and return its ``command``."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"streamer.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table without importing any verb."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Keep every viewer's user factors fresh in Redis, from play and browse events in Kafka."""


def main() -> None:
    """Run the command line; every expected failure is one line and a telling exit code."""
    # One process is one core's work: BLAS threads would only fight the other workers.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        cli(prog_name="streamer")
    except ConfigError as error:
        _fail(error, EXIT_CONFIG)
    except TransientError as error:
        _fail(error, EXIT_UNAVAILABLE)
    except RestartNeeded as error:
        _fail(error, EXIT_TEMPORARY)
    except StreamerError as error:
        _fail(error, EXIT_FAILURE)


def _fail(error: Exception, code: int) -> None:
    click.echo(f"streamer: {error}", err=True)
    sys.exit(code)
