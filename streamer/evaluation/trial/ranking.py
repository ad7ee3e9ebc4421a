"""At which place a contender ranks the played title among all titles that are new to the viewer.

Scores come in blocks of (targets, items), float32. The place is counted, not sorted: how many
candidates score higher, or the same with a smaller row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.trial.targets import Targets

MAX_SCORES_AT_ONCE: Final = 2_000_000
"""8 MB of float32: what is counted over is best still in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some targets that are ranked together.

    Attributes:
        targets: intp, shape (n,); which.
        item_rows: intp, shape (n,); the played titles.
        seen_places: intp; for each touched title, the place of its target in the block.
        seen_rows: intp, the same shape; rows of the touched titles.
    """

    targets: NDArray[np.intp]
    item_rows: NDArray[np.intp]
    seen_places: NDArray[np.intp]
    seen_rows: NDArray[np.intp]

    @classmethod
    def of(cls, targets: Targets, chosen: NDArray[np.intp]) -> Block:
        """Return a block of the chosen targets."""
        return cls(chosen, targets.item_rows[chosen], *targets.seen(chosen))

    def __len__(self) -> int:
        return len(self.targets)


def block_length(n_items: int) -> int:
    """Return how many targets are ranked at once."""
    return max(1, MAX_SCORES_AT_ONCE // n_items)


def ranks(scores: NDArray[np.float32], block: Block) -> NDArray[np.int32]:
    """Return how many candidates come before each played title, int32, shape (n,); 0 is best.

    Args:
        scores: float32, shape (n, n_items), finite; of touched titles too, which do not count.
        block: The targets.
    """
    everybody = np.arange(len(block))
    mine = scores[everybody, block.item_rows][:, None]
    n_before = np.count_nonzero(scores > mine, axis=1)
    tied = np.flatnonzero(np.count_nonzero(scores == mine, axis=1) > 1)
    for place in tied.tolist():
        n_before[place] += np.count_nonzero(
            scores[place, : block.item_rows[place]] == mine[place, 0]
        )
    places, rows = block.seen_places, block.seen_rows
    theirs, of_target = scores[places, rows], mine[places, 0]
    is_before = (theirs > of_target) | ((theirs == of_target) & (rows < block.item_rows[places]))
    n_before -= np.bincount(places[is_before], minlength=len(block))
    found: NDArray[np.int32] = n_before.astype(np.int32)
    return found


def best(
    scores: NDArray[np.float32], block: Block, places: NDArray[np.intp], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the k best candidates of some of the targets, best first; ties by row.

    Returns:
        Rows int32 and scores float32, shape (len(places), k); row -1 where there are no more.
    """
    chosen = scores[places].copy()
    position = np.full(len(block), -1, np.intp)
    position[places] = np.arange(len(places))
    mine = position[block.seen_places]
    chosen[mine[mine >= 0], block.seen_rows[mine >= 0]] = -np.inf
    n_kept = min(k, chosen.shape[1])
    rows = np.full((len(places), k), -1, np.int32)
    values = np.full((len(places), k), -np.inf, np.float32)
    for at, row_scores in enumerate(chosen):
        # All that tie with the k-th, so that the smallest rows among them are taken.
        least = np.partition(row_scores, len(row_scores) - n_kept)[len(row_scores) - n_kept]
        candidates = np.flatnonzero(row_scores >= least)
        candidates = candidates[np.argsort(-row_scores[candidates], kind="stable")][:n_kept]
        rows[at, :n_kept] = candidates
        values[at, :n_kept] = row_scores[candidates]
    rows[values == -np.inf] = -1
    return rows, values
