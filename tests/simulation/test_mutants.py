"""The simulation bites: each of these mutants is caught, within a few seeds."""

import pytest
from simulation.mutants import MUTANTS
from simulation.world import simulate

MAX_SEEDS = 150


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught(mutant, record_property):
    with mutant():
        for seed in range(MAX_SEEDS):
            try:
                simulate(seed)
            except AssertionError as error:
                record_property("seed", seed)
                print(f"{mutant.__name__}: seed {seed}: {str(error)[:200]}")  # noqa: T201
                return
    pytest.fail(f"{MAX_SEEDS} seeds have not seen it")
