"""Asks a learner, and trusts nothing that it answers: it may be anybody's code.

Whatever goes wrong becomes a `LearnerError`, so that one learner takes its own variant out of
service and never the stream.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import LearnerError
from streamer.factors.learner import Learner, UserFactors
from streamer.factors.model import ItemModel
from streamer.history import HistoryBatch

RAISED: Final = "raised"
WRONG_FORM: Final = "wrong_form"
NOT_FINITE: Final = "not_finite"
NOT_PURE: Final = "not_pure"
LEARNER_FAULTS: Final = (RAISED, WRONG_FORM, NOT_FINITE, NOT_PURE)
"""Every reason of a `LearnerError`; the last is found by `check_learner` alone."""
MAX_VECTORS: Final = 2


def ask(learner: Learner, histories: HistoryBatch, model: ItemModel) -> UserFactors:
    """Return the learner's answer, checked; some 0.1 µs a user.

    Raises:
        LearnerError: It raised, or the answer has another form than `UserFactors` says, or a row
            is not finite and not rejected.
    """
    try:
        answer = learner(histories, model)
    except Exception as error:
        lines = str(error).strip().splitlines()
        cause = ": ".join([type(error).__name__, *lines[:1]])
        raise LearnerError(f"learner {learner.name!r} raised {cause}", RAISED) from error
    fault = _wrong_form(answer, histories, model)
    if fault:
        raise LearnerError(f"learner {learner.name!r} {fault}", WRONG_FORM)
    is_finite = np.isfinite(answer.vectors).all(axis=(1, 2)) | answer.is_rejected
    if not is_finite.all():
        raise LearnerError(
            f"learner {learner.name!r} answered NaN or infinity for {int((~is_finite).sum())} of "
            f"{len(histories)} users without rejecting them; set is_rejected where a row must not "
            "be published",
            NOT_FINITE,
        )
    return answer


def _wrong_form(answer: object, histories: HistoryBatch, model: ItemModel) -> str:
    """Say what is wrong with the form of an answer; nothing if it is right."""
    if not isinstance(answer, UserFactors):
        return f"answered a {type(answer).__name__}; expected a UserFactors"
    n_users = len(histories)
    forms = {
        "vectors": (np.float32, (n_users, _n_vectors(answer.vectors), model.n_factors)),
        "n_solved": (np.int64, (n_users,)),
        "is_rejected": (np.bool_, (n_users,)),
    }
    for name, (dtype, shape) in forms.items():
        array = getattr(answer, name)
        if not isinstance(array, np.ndarray):
            found = f"a {type(array).__name__}"
        elif array.dtype != dtype or array.shape != shape:
            found = f"{array.dtype} of shape {array.shape}"
        else:
            continue
        return f"answered {name} as {found}; expected {np.dtype(dtype)} of shape {shape}"
    is_countable = (answer.n_solved >= 0) & (answer.n_solved <= histories.counts)
    if not is_countable.all():
        row = int(np.argmin(is_countable))
        return (
            f"answered n_solved {answer.n_solved[row]} for a history of {histories.counts[row]} "
            "entries; expected how many of them it learned from"
        )
    return ""


def _n_vectors(vectors: NDArray[np.float32]) -> int:
    """Return how many vectors a user should have: as many as there are, if that is allowed."""
    shape = np.shape(vectors)
    return min(max(1, shape[1]), MAX_VECTORS) if len(shape) == 3 else MAX_VECTORS
