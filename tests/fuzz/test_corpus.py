"""Every target over its corpus, and over seeded mutations of it; no fuzzer is needed for that."""

import random
from pathlib import Path

import pytest
from fuzz.mutations import mutated
from fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
N_MUTATIONS = {"events": 4000, "records": 800, "histories": 600, "features": 1500}
N_MUTATIONS |= {"reads": 150, "notes": 4000, "models": 800}
MAX_FILE_BYTES = 16_384


def inputs(target):
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}


@pytest.mark.parametrize(
    ("target", "name"), [(target, name) for target in TARGETS for name in inputs(target)]
)
def test_what_was_once_found_or_sown_does_no_harm(target, name):
    TARGETS[target](inputs(target)[name])


@pytest.mark.parametrize("target", TARGETS)
def test_no_seeded_mutation_of_the_corpus_does_harm(target):
    corpus = list(inputs(target).values())
    for seed in range(N_MUTATIONS[target]):
        rolls = random.Random(f"{target} {seed}")
        data = mutated(rolls.choice(corpus), corpus, rolls)
        try:
            TARGETS[target](data)
        except BaseException as error:
            error.add_note(f"target {target}, seed {seed}, input {data[:2000]!r}")
            raise


def test_the_corpus_is_small_and_belongs_to_the_targets():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS) == set(N_MUTATIONS)
    for target in TARGETS:
        assert all(len(data) <= MAX_FILE_BYTES for data in inputs(target).values())
        assert len(set(inputs(target).values())) == len(inputs(target))
