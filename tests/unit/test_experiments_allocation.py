"""Who is in which cell: the test vectors, another language, and what chance should look like."""

import json
import shutil
import string
import subprocess
from pathlib import Path

import numpy as np
import pytest

from streamer.experiments import (
    N_SLOTS,
    UNALLOCATED,
    Cell,
    Experiment,
    SlotRange,
    allocate,
    allocate_many,
    slot_of,
    slots_of,
)

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "allocation_vectors.json").read_text(encoding="utf-8"))
USERS = [f"u-{number}" for number in range(100_000)]

NODE_MAIN = string.Template("""
import { readFileSync } from "node:fs";
import { allocate, slotOf } from "$sample";
const { salt, cells, users } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(users.map((user) => [slotOf(user, salt), allocate(user, salt, cells)])));
""")


def experiment_of(parts):
    cells = tuple(
        Cell(
            part["name"],
            part["share"],
            tuple(SlotRange(*map(int, each.split("-"))) for each in part["slots"]),
        )
        for part in parts["cells"]
    )
    return Experiment("memory", "taste", parts["salt"], cells)


EXPERIMENT = experiment_of(VECTORS["experiment"])


def name_of(cell):
    return None if cell is None else cell.name


def chi_square(found, expected):
    return float(((found - expected) ** 2 / expected).sum())


def chi_square_limit(n_free):
    """The value that chance exceeds once in a thousand times (Wilson and Hilferty 1931)."""
    part = 2 / (9 * n_free)
    return n_free * (1 - part + 3.09 * part**0.5) ** 3


@pytest.mark.parametrize("vector", VECTORS["slots"])
def test_slots_are_those_of_the_vectors(vector):
    assert slot_of(vector["user_id"], vector["salt"]) == vector["slot"]
    assert slots_of([vector["user_id"]], vector["salt"]).tolist() == [vector["slot"]]


@pytest.mark.parametrize("vector", VECTORS["allocations"])
def test_cells_are_those_of_the_vectors(vector):
    assert slot_of(vector["user_id"], EXPERIMENT.salt) == vector["slot"]
    assert name_of(allocate(vector["user_id"], EXPERIMENT)) == vector["cell"]


def test_the_sample_in_javascript_agrees(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("not run: no node on the PATH, so its sample was not tried")
    sample = (ROOT / "docs" / "examples" / "allocate.mjs").as_uri()
    (tmp_path / "main.mjs").write_text(NODE_MAIN.substitute(sample=sample), encoding="utf-8")
    users = [*USERS[:5000], "zoë", "日本語", "a:b"]
    done = subprocess.run(
        [node, str(tmp_path / "main.mjs")],
        input=json.dumps({**VECTORS["experiment"], "users": users}).encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    for user_id, (slot, cell) in zip(users, json.loads(done.stdout), strict=True):
        assert slot == slot_of(user_id, EXPERIMENT.salt)
        assert cell == name_of(allocate(user_id, EXPERIMENT))


def test_every_slot_is_as_likely_as_any_other():
    slots = slots_of(USERS, "taste-2026-11")
    for width in (1, 100, 2500):
        found = np.bincount(slots // width, minlength=N_SLOTS // width)
        expected = len(USERS) * width / N_SLOTS
        assert chi_square(found, expected) < chi_square_limit(len(found) - 1), width


@pytest.mark.parametrize("other", ["page-2026-11", "taste-2026-12", "t", "taste-2026-11."])
def test_another_salt_deals_all_users_anew_however_alike_it_is(other):
    one, two = slots_of(USERS, "taste-2026-11") // 500, slots_of(USERS, other) // 500
    found = np.bincount(one * 20 + two, minlength=400)
    assert chi_square(found, len(USERS) / 400) < chi_square_limit(399)


def test_a_share_takes_its_slots_in_the_order_in_which_they_are_written():
    cells = (Cell("a", 3, (SlotRange(7, 8), SlotRange(2, 5))),)
    experiment = Experiment("e", "l", "salt", cells)
    by_slot = {slot_of(user, "salt"): user for user in USERS}
    used = {slot for slot in range(20) if allocate(by_slot[slot], experiment)}
    assert used == {7, 8, 2}


def test_many_are_allocated_as_one():
    found = allocate_many(USERS[:3000], EXPERIMENT)
    names = [None if i == UNALLOCATED else EXPERIMENT.cells[i].name for i in found.tolist()]
    assert names == [name_of(allocate(user, EXPERIMENT)) for user in USERS[:3000]]
    assert set(names) == {None, "control", "long"}
    assert allocate_many([], EXPERIMENT).tolist() == []
