"""Baselines that keep everything: the standard user half-step over a viewer's whole past.

``A = G + λI + α Σ s v vᵀ``, ``u = A⁻¹ α Σ s t v`` (Hu, Koren, Volinsky 2008) with the model's own
strengths, no recency and no cut: what `lasting` is to a history that never overflows. The last
interaction of each (item, kind) counts, and a thumbs-down hides its item, as in a history.

Both sums only grow by what each interaction changes, so a viewer's moments cost one update and one
solve each, however long the past is. float64, exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.event_log import EventLog
from streamer.evaluation.trial.targets import Targets
from streamer.events import Kind, Thumb
from streamer.factors import UNKNOWN_ROW, ItemModel

SOLVED_AT_ONCE: Final = 256


def full_vectors(
    log: EventLog,
    targets: Targets,
    model: ItemModel,
    users: NDArray[np.intp],
    ends: NDArray[np.intp],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the vector of a viewer's whole past before an interaction of the log.

    Args:
        log: The log.
        targets: Its targets.
        model: The items.
        users: intp, shape (n,), ascending.
        ends: intp, shape (n,), ascending for each viewer; the past is what is before it.

    Returns:
        float32 vectors, shape (n, n_factors), zeros for the cold; and who is not cold, bool,
        shape (n,).
    """
    vectors = np.zeros((len(users), model.n_factors), np.float32)
    is_warm = np.zeros(len(users), bool)
    base = model.item_gram + model.params.regularization * np.eye(model.n_factors)
    left = np.empty((SOLVED_AT_ONCE, *base.shape))
    right = np.empty((SOLVED_AT_ONCE, model.n_factors))
    sums, user = _Sums(base), -1
    changes = _Changes(log, targets, model)
    for start in range(0, len(users), SOLVED_AT_ONCE):
        stop = min(start + SOLVED_AT_ONCE, len(users))
        for row in range(start, stop):
            if users[row] != user:
                user = int(users[row])
                changes.begin(user)
                sums = _Sums(base)
            sums.add(changes, int(ends[row]), model)
            left[row - start], right[row - start] = sums.left, sums.right
            is_warm[row] = sums.n_positive > 0
        n_rows = stop - start
        solved = np.linalg.solve(left[:n_rows], right[:n_rows, :, None])[:, :, 0]
        vectors[start:stop] = np.where(is_warm[start:stop, None], solved, 0.0)
    return vectors, is_warm


@dataclass(slots=True)
class _Change:
    """What one interaction changes: a row of the model, and by how much.

    Attributes:
        row: In the model; UNKNOWN_ROW if nothing changes.
        weight: Of Σ s v vᵀ.
        pull: Of Σ s t v.
        n_positive: Of the entries with t = 1 and s > 0.
    """

    row: int
    weight: float
    pull: float
    n_positive: int


@dataclass(slots=True)
class _Evidence:
    """What is known of one title: the strength of each kind."""

    strengths: dict[int, float] = field(default_factory=dict)
    is_down: bool = False

    def totals(self) -> tuple[float, float, int]:
        """Return Σ s, Σ s t and the number of positive entries."""
        if self.is_down:
            return self.strengths[Kind.THUMB], 0.0, 0
        total = sum(self.strengths.values())
        return total, total, sum(strength > 0 for strength in self.strengths.values())


class _Changes:
    """A viewer's interactions as changes, in order."""

    def __init__(self, log: EventLog, targets: Targets, model: ItemModel) -> None:
        self._log = log
        self._item_rows = targets.rows_of_events
        self._strength = model.strength_table
        self._at = 0
        self._evidence: dict[int, _Evidence] = {}

    def begin(self, user: int) -> None:
        """Go to the first interaction of a viewer."""
        self._at = int(self._log.starts[user])
        self._evidence = {}

    def until(self, end: int) -> list[_Change]:
        """Return the changes up to an interaction, and go there."""
        stretch = slice(self._at, end)
        self._at = end
        rows = self._item_rows[stretch].tolist()
        words = self._log.words[stretch].tolist()
        return [
            self._change(row, word & 0xFF, word >> 8 & 0xFF)
            for row, word in zip(rows, words, strict=True)
            if row != UNKNOWN_ROW
        ]

    def _change(self, row: int, kind: int, value: int) -> _Change:
        evidence = self._evidence.setdefault(row, _Evidence())
        weight, pull, n_positive = evidence.totals()
        evidence.strengths[kind] = float(self._strength[kind, value])
        if kind == Kind.THUMB:
            evidence.is_down = value == Thumb.DOWN
        new_weight, new_pull, new_n_positive = evidence.totals()
        return _Change(row, new_weight - weight, new_pull - pull, new_n_positive - n_positive)


class _Sums:
    """The two sides of a viewer's system."""

    def __init__(self, base: NDArray[np.float64]) -> None:
        self.left = base.copy()
        self.right = np.zeros(len(base))
        self.n_positive = 0

    def add(self, changes: _Changes, end: int, model: ItemModel) -> None:
        """Take what happened up to an interaction."""
        found = changes.until(end)
        if not found:
            return
        x = model.item_factors[[change.row for change in found]].astype(np.float64)
        weights = np.array([(change.weight, change.pull) for change in found])
        weights *= model.params.alpha
        self.left += (x.T * weights[:, 0]) @ x
        self.right += weights[:, 1] @ x
        self.n_positive += sum(change.n_positive for change in found)
