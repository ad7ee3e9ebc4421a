from dataclasses import fields

import numpy as np
import oracle
import pytest

from streamer.factors import Signals, strengths
from streamer.history import N_SLOTS

TABLE = Signals().table()


@pytest.mark.parametrize(
    ("kind", "value", "strength"),
    [
        (oracle.PLAY, 200, 1.0),
        (oracle.PLAY, 180, 1.0),  # p = .9 exactly
        (oracle.PLAY, 179, 0.801025),
        (oracle.PLAY, 100, 0.25),
        (oracle.PLAY, 64, 0.1024),
        (oracle.PLAY, 63, 0.1),  # .099 is below the least
        (oracle.PLAY, 10, 0.1),
        (oracle.BRIEF_PLAY, 0, 0.05),
        (oracle.BRIEF_PLAY, 200, 0.05),
        (oracle.TRAILER_VIEW, 0, 0.3),
        (oracle.DETAIL_VIEW, 0, 0.15),
        (oracle.MY_LIST, 1, 0.6),
        (oracle.MY_LIST, 0, 0.0),
        (oracle.THUMB, 2, 1.5),
        (oracle.THUMB, 1, 0.3),
        (oracle.THUMB, 0, 0.0),
        (oracle.THUMB, 3, 0.0),
        (0, 0, 0.0),
        (77, 5, 0.0),
    ],
)
def test_the_default_strengths_are_the_documented_ones(kind, value, strength):
    assert TABLE[kind, value] == pytest.approx(strength, abs=1e-15)


def test_the_whole_table_is_the_oracles():
    for kind in oracle.KINDS.values():
        for value in range(256):
            entry = oracle.Interaction(1, kind, 1, value)
            assert TABLE[kind, value] == oracle.strength(entry, oracle.SIGNALS)
    assert not np.delete(TABLE, list(oracle.KINDS.values()), axis=0).any()


@pytest.mark.parametrize("name", [field.name for field in fields(Signals)])
def test_every_signal_moves_something_and_is_never_negative(name):
    changed = Signals(**{name: 0.77}).table()
    assert (changed != TABLE).any()
    for bad in (-0.001, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"signals.{name} is "):
            Signals(**{name: bad})


def test_strengths_have_the_shape_of_the_words_and_empty_slots_none():
    words = np.zeros((2, N_SLOTS), np.uint64)
    words[1, 3] = oracle.word(1_764_000_000_000, 2, oracle.THUMB)
    found = strengths(words, TABLE)
    assert found.shape == words.shape
    assert found[1, 3] == found.sum() == 1.5
