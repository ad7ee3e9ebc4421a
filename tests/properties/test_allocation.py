"""Allocation: a share that changes moves those who come or go, and nobody else."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.experiments import (
    N_SLOTS,
    UNALLOCATED,
    Assignments,
    Catalog,
    Cell,
    Experiment,
    Layer,
    SlotRange,
    allocate,
    allocate_many,
)
from streamer.experiments.allocation import slot_table, used_slots

SALT = "taste-2026-11"


@st.composite
def experiments(draw):
    """Two experiments of one layer, whose cells own random stretches in a random order."""
    cuts = sorted(draw(st.sets(st.integers(1, N_SLOTS - 1), min_size=5, max_size=12)))
    bounds = [0, *cuts, N_SLOTS]
    ranges = [SlotRange(first, end - 1) for first, end in pairwise(bounds)]
    ranges = draw(st.permutations(ranges))
    owners = [ranges[index::5] for index in range(5)]  # the last one owns what nobody uses
    cells = []
    for name, owned in zip("abcd", owners, strict=False):
        share = draw(st.integers(0, sum(map(len, owned))))
        cells.append(Cell(name, share, tuple(owned)))
    return (
        Experiment("one", "taste", SALT, tuple(cells[:2])),
        Experiment("two", "taste", SALT, tuple(cells[2:])),
    )


@given(experiments(), st.data())
def test_a_growing_share_moves_newcomers_only(both, data):
    before = both[0]
    cell = before.cells[0]
    grown = replace(cell, share=data.draw(st.integers(cell.share, sum(map(len, cell.slots)))))
    old = slot_table(before)
    new = slot_table(replace(before, cells=(grown, before.cells[1])))
    moved = old != new
    assert set(old[moved].tolist()) <= {UNALLOCATED}
    assert set(new[moved].tolist()) <= {0}
    assert np.count_nonzero(moved) == grown.share - cell.share


@given(experiments())
def test_a_slot_is_used_by_one_cell_of_a_layer_and_as_many_as_the_share_says(both):
    used = [used_slots(cell) for experiment in both for cell in experiment.cells]
    assert [len(each) for each in used] == [c.share for each in both for c in each.cells]
    assert len(np.unique(np.concatenate(used))) == sum(map(len, used))


@given(experiments(), st.lists(st.text(min_size=1, max_size=20), max_size=20))
def test_one_many_and_assignments_agree(both, user_ids):
    user_ids = [each for each in user_ids if each.isprintable()]
    catalog = Catalog.of([Layer("taste", SALT, ())], [], both)
    assignments = Assignments(catalog)
    found = assignments.of_many(user_ids)
    assert found == [assignments.of(user_id) for user_id in user_ids]
    for experiment in both:
        columns = allocate_many(user_ids, experiment).tolist()
        for user_id, index, assignment in zip(user_ids, columns, found, strict=True):
            cell = allocate(user_id, experiment)
            assert cell == (None if index == UNALLOCATED else experiment.cells[index])
            assert assignment.cells.get(experiment.name) == (cell and cell.name)
            assert len(assignment.cells) <= 1
