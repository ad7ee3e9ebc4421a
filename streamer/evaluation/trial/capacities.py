"""The default learner on histories of another capacity: what would more plays be worth?

The capacity of a group is a constant of the format, because every writer must cut alike. Whether a
next format should hold more is asked here: a history is taken from the log itself, each (item,
kind) once, the newest of each group, and solved by `factors.reference`, which takes any length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.contenders import Served, blended
from streamer.evaluation.trial.event_log import EventLog
from streamer.evaluation.trial.targets import Targets
from streamer.events import Kind
from streamer.factors import ItemModel, UserFactors, reference
from streamer.history import CAPACITIES, kinds
from streamer.history.codec import ENTRY, HEADER
from streamer.history.layout import GROUP_OF_KIND

PLAYS: Final = int(GROUP_OF_KIND[Kind.PLAY])
PLAY_CAPACITY: Final = int(CAPACITIES[PLAYS])
MAX_CAPACITY: Final = 1000
SOLVED_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class LongHistories:
    """Histories of any capacity, as `reference.fold_in` reads them.

    Attributes:
        item_keys: uint64, shape (n, n_slots), newest first; 0 beyond a history's entries.
        words: uint64, shape (n, n_slots); likewise.
    """

    item_keys: NDArray[np.uint64]
    words: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.words)


def contender_name(capacity: int) -> str:
    """Return how the report calls the default learner with room for so many plays."""
    return f"capacity_{capacity}"


def history_bytes(n_entries: float) -> float:
    """Return the size of a history's value."""
    return HEADER.itemsize + ENTRY.itemsize * n_entries


def serve_capacity(
    log: EventLog, targets: Targets, chosen: NDArray[np.intp], model: ItemModel, capacity: int
) -> tuple[Served, NDArray[np.int64]]:
    """Return what a reader would serve at some targets with room for `capacity` plays.

    Returns:
        What is served, and the entries of each history, int64, shape (len(chosen),).
    """
    parts: list[UserFactors] = []
    newest: list[NDArray[np.uint64]] = []
    lengths: list[NDArray[np.int64]] = []
    for start in range(0, len(chosen), SOLVED_AT_ONCE):
        histories = _histories(log, targets, chosen[start : start + SOLVED_AT_ONCE], capacity)
        parts.append(reference.fold_in(histories, model))
        newest.append(histories.words[:, 0])
        lengths.append(np.count_nonzero(histories.words, axis=1))
    factors = UserFactors(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.n_solved for part in parts]),
        np.concatenate([part.is_rejected for part in parts]),
    )
    served = blended(factors, np.concatenate(newest), targets.times_ms[chosen], model)
    return served, np.concatenate(lengths)


def _histories(
    log: EventLog, targets: Targets, chosen: NDArray[np.intp], capacity: int
) -> LongHistories:
    """Return the viewers' histories just before some targets."""
    capacities = {group: int(each) for group, each in enumerate(CAPACITIES)} | {PLAYS: capacity}
    n_slots = sum(capacities.values())
    item_keys, words = np.zeros((2, len(chosen), n_slots), np.uint64)
    for row, (begin, end) in enumerate(_stretches(log, targets, chosen)):
        held = _held(log.item_keys[begin:end], log.words[begin:end], capacities)
        item_keys[row, : len(held)] = log.item_keys[begin:end][held]
        words[row, : len(held)] = log.words[begin:end][held]
    return LongHistories(item_keys, words)


def _stretches(
    log: EventLog, targets: Targets, chosen: NDArray[np.intp]
) -> Iterator[tuple[int, int]]:
    """Yield where a viewer's past before each target begins and ends in the log."""
    begins = log.starts[targets.users[chosen]].tolist()
    yield from zip(begins, targets.events[chosen].tolist(), strict=True)


def _held(
    item_keys: NDArray[np.uint64], words: NDArray[np.uint64], capacities: Mapping[int, int]
) -> NDArray[np.intp]:
    """Return which interactions a history would hold, newest first."""
    newest_first = np.lexsort((item_keys, words))[::-1]
    keys, of_kind = item_keys[newest_first], kinds(words[newest_first])
    by_key = np.lexsort((of_kind, keys))  # stable: still newest first within an (item, kind)
    is_last_writer = np.ones(len(keys), bool)
    is_same = (keys[by_key][1:] == keys[by_key][:-1]) & (
        of_kind[by_key][1:] == of_kind[by_key][:-1]
    )
    is_last_writer[by_key[1:]] = ~is_same
    groups = GROUP_OF_KIND[of_kind]
    is_held = np.zeros(len(keys), bool)
    for group, capacity in capacities.items():
        is_held[np.flatnonzero(is_last_writer & (groups == group))[:capacity]] = True
    return newest_first[is_held]
