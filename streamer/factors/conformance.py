"""Is this a learner? Asked before one goes into service, on histories made for the purpose.

The histories are drawn from a fixed seed over the model's own items, so the same learner and model
are always judged alike: empty ones, full ones, ones of unknown items alone, hidden items, and
mixtures.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import LearnerError
from streamer.events import Kind, MyList, Thumb
from streamer.factors.asking import NOT_PURE, WRONG_FORM, ask
from streamer.factors.learner import Learner, UserFactors
from streamer.factors.model import ItemModel
from streamer.history import N_SLOTS, HistoryBatch, Interactions, merge, pack_words

N_USERS: Final = 32
TOLERANCE: Final = 1e-5
"""‖Δ‖ / ‖u‖ of a user who is asked about in another order, or alone."""

_SEED: Final = 20140710
_FIRST_MS: Final = 1_700_000_000_000
_EVIDENCE: Final = np.array(
    [
        value << 8 | kind
        for kind, value in (
            (Kind.PLAY, 200),
            (Kind.PLAY, 90),
            (Kind.BRIEF_PLAY, 4),
            (Kind.DETAIL_VIEW, 0),
            (Kind.TRAILER_VIEW, 0),
            (Kind.MY_LIST, MyList.ADDED),
            (Kind.THUMB, Thumb.UP),
            (Kind.THUMB, Thumb.DOWN),
            (Kind.THUMB, Thumb.CLEARED),
        )
    ],
    np.uint64,
)


def check_learner(learner: Learner, model: ItemModel) -> None:
    """Return if the learner does what `Learner` says; some 70 calls of one to 32 users.

    Raises:
        LearnerError: It does not; says what it did, and what would be right.
    """
    histories = histories_for(model)
    before = _copies(histories, model)
    answer = ask(learner, histories, model)
    _ensure_unchanged(learner, before, _arrays(histories, model))
    ask(learner, HistoryBatch.empty(0), model)
    _ensure_cold_is_zero(learner, answer, histories)
    _ensure_same(learner, answer, ask(learner, histories, model), "asked twice", tolerance=0.0)
    order = np.random.default_rng(_SEED).permutation(N_USERS)
    permuted = ask(learner, histories.take(order), model)
    _ensure_same(learner, _rows(answer, order), permuted, "asked in another order", TOLERANCE)
    for user in range(N_USERS):
        row = np.array([user])
        alone = ask(learner, histories.take(row), model)
        _ensure_same(learner, _rows(answer, row), alone, "asked about alone", TOLERANCE)


def histories_for(model: ItemModel) -> HistoryBatch:
    """Return N_USERS histories: the first is empty, the second full, the third of unknown items."""
    rng = np.random.default_rng(_SEED)
    unknown_keys = rng.integers(1, 2**63, 4 * N_SLOTS).astype(np.uint64)
    n_events = [0, 8 * N_SLOTS, 8, *np.geomspace(1, 4 * N_SLOTS, N_USERS - 3).astype(int)]
    rows = np.repeat(np.arange(N_USERS), n_events)
    is_unknown = (rng.random(len(rows)) < 0.2) | (rows == 2)
    is_unknown[rows == 1] = False
    keys = np.where(
        is_unknown,
        rng.choice(unknown_keys, len(rows)),
        rng.choice(model.item_keys, len(rows)),
    )
    times_ms = _FIRST_MS + rng.integers(0, 10**9, len(rows))
    evidence = rng.integers(0, len(_EVIDENCE), len(rows))
    words = pack_words(times_ms.astype(np.uint64), _EVIDENCE[evidence])
    arrived = Interactions(rows, keys, words, np.zeros(N_USERS, np.uint64))
    return merge(HistoryBatch.empty(N_USERS), arrived)[0]


def _arrays(histories: HistoryBatch, model: ItemModel) -> dict[str, NDArray[Any]]:
    """Return what a learner is given and could change; mapped files are read-only anyway."""
    return {
        "histories.item_keys": histories.item_keys,
        "histories.words": histories.words,
        "histories.counts": histories.counts,
        "model.item_keys": model.item_keys,
        "model.item_factors": model.item_factors,
        "model.popularity": model.popularity,
        "model.item_gram": model.item_gram,
        "model.whitening": model.whitening,
        "model.strength_table": model.strength_table,
    }


def _copies(histories: HistoryBatch, model: ItemModel) -> dict[str, NDArray[Any]]:
    arrays = _arrays(histories, model)
    return {name: array.copy() for name, array in arrays.items() if array.flags.writeable}


def _ensure_unchanged(
    learner: Learner, before: dict[str, NDArray[Any]], now: dict[str, NDArray[Any]]
) -> None:
    for name, array in before.items():
        if not np.array_equal(array, now[name]):
            raise LearnerError(
                f"learner {learner.name!r} changed {name}, which belongs to others; copy it first",
                NOT_PURE,
            )


def _ensure_cold_is_zero(learner: Learner, answer: UserFactors, histories: HistoryBatch) -> None:
    is_cold = answer.n_solved == 0
    if answer.vectors[is_cold & ~answer.is_rejected].any():
        raise LearnerError(
            f"learner {learner.name!r} gave a vector to users of whom it learned nothing "
            "(n_solved 0); expected zeros, readers serve such users what is popular",
            WRONG_FORM,
        )
    assert is_cold[histories.counts == 0].all(), "n_solved is at most the number of entries"


def _ensure_same(
    learner: Learner, first: UserFactors, second: UserFactors, when: str, tolerance: float
) -> None:
    """Compare two answers about the same users; rejected rows may hold anything."""
    if first.vectors.shape != second.vectors.shape:
        what = f"{first.vectors.shape[1]} vectors a user, then {second.vectors.shape[1]}"
    elif not np.array_equal(first.is_rejected, second.is_rejected):
        what = "another is_rejected"
    elif not np.array_equal(first.n_solved, second.n_solved):
        what = "another n_solved"
    else:
        kept = ~first.is_rejected
        exact = first.vectors[kept].astype(np.float64)
        distance = np.linalg.norm(second.vectors[kept] - exact, axis=2)
        is_far = distance > tolerance * np.linalg.norm(exact, axis=2)
        if not is_far.any():
            return
        what = f"other vectors, up to {distance.max():.1e} away"
    raise LearnerError(
        f"learner {learner.name!r}, {when}, answered differently: {what}; a user's factors may "
        "depend on that user's history and the model alone, not on a clock, randomness, earlier "
        "calls or the rest of the batch",
        NOT_PURE,
    )


def _rows(answer: UserFactors, rows: NDArray[np.intp]) -> UserFactors:
    return UserFactors(answer.vectors[rows], answer.n_solved[rows], answer.is_rejected[rows])
