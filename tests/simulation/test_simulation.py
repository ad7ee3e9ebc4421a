"""The guarantees under faults drawn from a seed; `make simulate` runs many more."""

import pytest
from simulation.nemesis import FAULTS, STEPS
from simulation.world import simulate

N_SEEDS, CHUNK_SEEDS = 2000, 50
MAX_SEEDS_TO_REACH_A_STEP = 60


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, N_SEEDS, CHUNK_SEEDS))
def test_whatever_happens_nothing_is_lost_and_nothing_counts_twice(first):
    for seed in range(first, first + CHUNK_SEEDS):
        simulate(seed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_may_be_killed_at_every_step(step):
    def kill_there(world):
        for worker in world.alive:
            worker.task.crash_at = step

    chosen = ["crash", "drain", "store_errors", "letters_refused", "flush"]
    for seed in range(MAX_SEEDS_TO_REACH_A_STEP):
        world = simulate(seed, chosen, at_every_fault=kill_there)
        if world.scheduler.crashes[step]:
            return
    pytest.fail(f"no worker was killed at {step}")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_strikes(fault):
    assert any(simulate(seed, [fault]).nemesis.done[fault] for seed in range(20))


def test_one_number_replays_a_run_step_by_step():
    one, other = simulate(7), simulate(7)
    assert list(one.scheduler.trace) == list(other.scheduler.trace)
    assert one.state == other.state
