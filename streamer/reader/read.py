"""What a read returns: a status that never lies, and the vectors with their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.factors import FoldInParams
from streamer.factors.blend import blend
from streamer.history import HistoryBatch
from streamer.reader.live_model import ServedModel


class Status(StrEnum):
    """How good an answer is. Of several that apply, the first one of this list is told."""

    DEGRADED = "degraded"
    """Redis did not answer, so nothing is known of the viewer."""
    COLD = "cold"
    """Nothing to fold in: no history, or none with items that the model knows."""
    REFOLDED = "refolded"
    """Folded in by the reader, because the stored features are of another model, or missing."""
    STALE = "stale"
    """Sound, but the newest events may be missing; `age_seconds` says since when."""
    FRESH = "fresh"
    """Everything appended to the topics until `age_seconds` ago is in it."""


_DEFAULT_HALF_LIFE_S: Final = FoldInParams(alpha=1.0, regularization=1.0).blend_half_life_s
"""τ without a model, whose manifest would say it."""


@dataclass(frozen=True, slots=True, eq=False)
class UserRead:
    """One viewer, as Redis and the reader's item model say at one moment.

    Attributes:
        user_id: Who; not in the `repr`, because that ends in logs.
        status: How good the answer is.
        age_seconds: Everything appended to the topics before this time ago is surely readable;
            None while no worker vouches for anything. It is of the group, not of this viewer, and
            given with every status.
        as_of_ms: Event time of the viewer's newest interaction; None where nothing is known.
        written_ms: When the stored features were written; None where they are not used.
        model_id: The item model that vectors and answers belong to; None without one.
        generation: Of the pointer that named the model when the vectors were made.
        vectors: float32, shape (2, n_factors), read-only: `recent`, then `lasting`, of any length.
            None when COLD or DEGRADED: there is no vector of nobody.
        history: One row; None if this read did not need it.
        error: What went wrong, one of a closed set of labels (docs/reference/reader.md), or None.
        served: The item model that answers are made with, or None.
        is_imported: Whether `lasting` is an imported vector; alone if `as_of_ms` is None, and then
            it is `recent` too.
    """

    user_id: str = field(repr=False)
    status: Status
    age_seconds: float | None
    as_of_ms: int | None
    written_ms: int | None
    model_id: int | None
    generation: int | None
    vectors: NDArray[np.float32] | None = field(repr=False)
    history: HistoryBatch | None = field(repr=False)
    error: str | None
    served: ServedModel | None = field(repr=False)
    is_imported: bool = False

    @property
    def recent(self) -> NDArray[np.float32] | None:
        """What the viewer is up to now, shape (n_factors,); None when COLD or DEGRADED."""
        return None if self.vectors is None else self.vectors[0]

    @property
    def lasting(self) -> NDArray[np.float32] | None:
        """What the viewer likes in the long run, shape (n_factors,); None as `recent`."""
        return None if self.vectors is None else self.vectors[1]

    def vector(self, now_ms: int) -> NDArray[np.float32] | None:
        """Return the vector to multiply with the items of `model_id`, shape (n_factors,).

        Both vectors at length 1, blended by the time since the newest interaction. None when COLD
        or DEGRADED. `blend_many` does this for a page of users at once.
        """
        return blend_many([self], now_ms)[0]


def blend_many(reads: Sequence[UserRead], now_ms: int) -> list[NDArray[np.float32] | None]:
    """Return ``read.vector(now_ms)`` of every read, in their order, 20 times faster.

    Reads of different models may be mixed; each vector belongs to its own read's `model_id`.
    """
    blended: list[NDArray[np.float32] | None] = [None] * len(reads)
    groups: dict[tuple[ServedModel | None, int], list[int]] = {}
    for index, read in enumerate(reads):
        if read.vectors is not None:
            groups.setdefault((read.served, read.vectors.size), []).append(index)
    for (served, size), members in groups.items():
        parts = [pair for index in members if (pair := reads[index].vectors) is not None]
        stacked = np.concatenate(parts).reshape(len(members), 2, size // 2)
        # Without any interaction the viewer has been idle for ever.
        as_of_ms = np.array([reads[index].as_of_ms or 0 for index in members], np.float64)
        half_life_s = served.model.params.blend_half_life_s if served else _DEFAULT_HALF_LIFE_S
        vectors = blend(stacked, (now_ms - as_of_ms) / 1000, half_life_s)
        for index, vector in zip(members, vectors, strict=True):
            blended[index] = vector
    return blended
