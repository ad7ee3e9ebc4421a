"""From a read to titles: the best k, scores of given ones, and the order of a page's rows. Pure.

A viewer with vectors is ranked by taste, ``item_factors · x``; anybody else by the model's
popularity, never by a zero or an average vector, which would look like a taste and be nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind, Thumb
from streamer.factors import UNKNOWN_ROW
from streamer.history import kinds, values
from streamer.reader.live_model import ServedModel
from streamer.reader.read import Status, UserRead, blend_many

NO_MODEL: Final = "no_model"
ROW_DEPTH: Final = 4
"""As many titles of a row as are seen without scrolling decide its place."""
MAX_SCORES_AT_ONCE: Final = 4_000_000
"""16 MB of float32: users are multiplied with the items in blocks of this size."""


@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """The best titles for one viewer.

    Attributes:
        user_id: Who; not in the `repr`.
        status: Of the read; COLD is ranked by popularity, and so is DEGRADED unless vectors had
            been read before. DEGRADED also stands for an answer without a model.
        age_seconds: Of the read.
        model_id: Whose items and scores these are; None without a model.
        item_ids: At most k titles, the best one first; empty without a model.
        scores: float32, one per title, descending: ``v · x`` or popularity, which do not compare.
        error: What went wrong, as in `UserRead`, or ``no_model``.
    """

    user_id: str = field(repr=False)
    status: Status
    age_seconds: float | None
    model_id: int | None
    item_ids: tuple[str, ...]
    scores: NDArray[np.float32] = field(repr=False)
    error: str | None


def top_k_many(reads: Sequence[UserRead], k: int, now_ms: int, *, exclude_seen: bool) -> list[TopK]:
    """Return the best k titles for each read, in their order.

    Args:
        reads: Of any models. Only a read with its history can leave out what was seen.
        k: At most so many; 0 or less gives none.
        now_ms: For the blend.
        exclude_seen: Leave out what the viewer played or gave a thumbs-down.
    """
    vectors = blend_many(reads, now_ms)
    answers: list[TopK | None] = [None] * len(reads)
    warm: dict[int, list[int]] = {}
    for index, read in enumerate(reads):
        if read.served is None:
            answers[index] = _without_model(read)
        elif vectors[index] is None:
            left_out = excluded_rows(read) if exclude_seen else _NO_ROWS
            answers[index] = _answer(read, read.served, *_most_popular(read.served, k, left_out))
        else:
            warm.setdefault(id(read.served), []).append(index)
    for members in warm.values():
        served = reads[members[0]].served
        assert served is not None
        step = max(1, MAX_SCORES_AT_ONCE // served.model.n_items)
        for start in range(0, len(members), step):
            block = members[start : start + step]
            stacked = np.array([vectors[index] for index in block])
            table = stacked @ served.model.item_factors.T
            for index, scores in zip(block, table, strict=True):
                if exclude_seen:
                    scores[excluded_rows(reads[index])] = -np.inf
                rows = best_rows(scores, k)
                answers[index] = _answer(reads[index], served, rows, scores[rows])
    return [answer for answer in answers if answer is not None]


def best_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return the rows of the k greatest scores, descending, equal ones by row; never of -inf."""
    k = min(k, len(scores))
    if k <= 0:
        return _NO_ROWS
    candidates = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
    best = candidates[np.lexsort((candidates, -scores[candidates]))]
    return best[scores[best] > -np.inf]


def excluded_rows(read: UserRead) -> NDArray[np.intp]:
    """Return the rows of the titles that the viewer played or hid; none without a history."""
    if read.history is None or read.served is None:
        return _NO_ROWS
    words = read.history.words
    is_play = kinds(words) == Kind.PLAY
    is_hidden = (kinds(words) == Kind.THUMB) & (values(words) == Thumb.DOWN)
    rows = read.served.model.rows_of(read.history.item_keys[is_play | is_hidden])
    return np.unique(rows[rows != UNKNOWN_ROW])


def score(read: UserRead, item_ids: Sequence[str], now_ms: int) -> NDArray[np.float32]:
    """Return each title's score for the viewer, float32, shape (n,); -inf if it is unknown.

    By taste where the read has vectors, else popularity. Without a model no title is known.
    """
    served = read.served
    scores = np.full(len(item_ids), -np.inf, np.float32)
    if served is None:
        return scores
    rows = np.array([served.rows.get(item_id, UNKNOWN_ROW) for item_id in item_ids], np.intp)
    is_known = rows != UNKNOWN_ROW
    vector = read.vector(now_ms)
    if vector is None:
        scores[is_known] = served.model.popularity[rows[is_known]]
    else:
        scores[is_known] = served.model.item_factors[rows[is_known]] @ vector
    return scores


def rank_rows(read: UserRead, rows: Mapping[str, Sequence[str]], now_ms: int) -> list[str]:
    """Return the names of a page's rows, the one that the viewer will like best first.

    A row counts as much as its best ROW_DEPTH titles do on average. A missing or unknown title
    counts 0, which is the model's score for "no preference", so that one good title does not lift
    an otherwise empty row. Rows without any known title come last; equal rows keep their order.
    """
    scores = score(read, [item_id for items in rows.values() for item_id in items], now_ms)
    worth: dict[str, float] = {}
    start = 0
    for name, items in rows.items():
        known = scores[start : start + len(items)]
        known = known[known > -np.inf]
        start += len(items)
        best = np.sort(known)[-ROW_DEPTH:]
        worth[name] = float(best.sum()) / ROW_DEPTH if len(known) else -np.inf
    return sorted(worth, key=lambda name: -worth[name])


def _most_popular(
    served: ServedModel, k: int, excluded: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    head = served.by_popularity[: max(0, k) + len(excluded)]
    rows = head[~np.isin(head, excluded)][: max(0, k)]
    return rows, served.model.popularity[rows]


def _answer(
    read: UserRead, served: ServedModel, rows: NDArray[np.intp], scores: NDArray[np.float32]
) -> TopK:
    model = served.model
    item_ids = tuple([model.item_ids[row] for row in rows.tolist()])
    return TopK(
        read.user_id, read.status, read.age_seconds, model.model_id, item_ids, scores, read.error
    )


def _without_model(read: UserRead) -> TopK:
    nothing = np.zeros(0, np.float32)
    error = read.error or NO_MODEL
    return TopK(read.user_id, Status.DEGRADED, read.age_seconds, None, (), nothing, error)


_NO_ROWS: Final = np.zeros(0, np.intp)
