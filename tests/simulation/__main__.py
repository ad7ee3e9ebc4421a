"""`make simulate`: many seeds on all cores, or one seed with its trace.

Exit 1 names every seed that failed; `make simulate SEED=n` shows what happened in it.
"""

import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import click
from rich.console import Console
from rich.progress import track
from simulation.nemesis import FAULTS, STEPS
from simulation.world import simulate

CHUNK_SEEDS = 50
MAX_SHOWN = 20


def run_chunk(first):
    """Return (failures by seed, faults done, kills by step) of some seeds."""
    failures, done, crashes = {}, Counter(), Counter()
    for seed in range(first, first + CHUNK_SEEDS):
        try:
            world = simulate(seed)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to a seed
            failures[seed] = f"{type(error).__name__}: {error} ({'; '.join(error.__notes__)})"
        else:
            done += Counter(world.nemesis.done)
            crashes += world.scheduler.crashes
    return failures, done, crashes


def run_many(first, n_seeds):
    failures, done, crashes = {}, Counter(), Counter()
    chunks = range(first, first + n_seeds, CHUNK_SEEDS)
    console = Console(stderr=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(run_chunk, chunks)
        for found in track(
            results, "seeds", len(chunks), console=console, disable=not console.is_terminal
        ):
            failures |= found[0]
            done += found[1]
            crashes += found[2]
    click.echo(f"{len(chunks) * CHUNK_SEEDS:,} seeds, {len(failures)} failed")
    click.echo("faults: " + ", ".join(f"{fault} {done[fault]:,}" for fault in FAULTS))
    click.echo("killed at: " + ", ".join(f"{step} {crashes[step]:,}" for step in STEPS))
    for seed, failure in list(failures.items())[:MAX_SHOWN]:
        click.echo(f"seed {seed}: {failure}")
    return not failures


def run_one(seed, n_lines):
    try:
        world = simulate(seed)
    except Exception as error:  # noqa: BLE001  shown with its trace
        for now, name, label in list(error.world.scheduler.trace)[-n_lines:]:
            click.echo(f"{now:12.4f}  {name:10}  {label}")
        click.echo("\n".join([f"{type(error).__name__}: {error}", *error.__notes__]))
        return False
    click.echo(f"seed {seed}: all is well; faults {sorted(world.nemesis.chosen)}")
    return True


@click.command()
@click.option("--seeds", default=20_000, show_default=True, help="How many.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="One alone, with the steps before its failure.")
@click.option("--lines", default=200, show_default=True, help="So many steps.")
def main(seeds, first, seed, lines):
    """Run the real loop under faults that are drawn from seeds."""
    sys.exit(not (run_many(first, seeds) if seed is None else run_one(seed, lines)))


if __name__ == "__main__":
    main()
