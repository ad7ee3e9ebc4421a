"""How well item factors serve: would the next title have been on the viewer's screen?

Prequential, with the production's own merge and fold-in. Every first play of a title in the last
tenth of the log is a question: of all titles that the viewer has not seen, is it among the k best
by ``v · x``? Here x is what a reader serves, both vectors blended by idle time, folded in from the
history as it was just before the play. What that history says about the title itself is left out
(the detail page was often opened a minute ago, and the answer would be in the question).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind
from streamer.factors import UNKNOWN_ROW, ItemModel, RecencyFoldIn, blend
from streamer.history import HistoryBatch, Interactions, event_times_ms, kinds, merge
from streamer.models.training_log import TrainingLog

K: Final = 20
MAX_QUESTIONS: Final = 4_000
"""Spread evenly over time; more would change recall by less than half a percent point."""
MAX_ARRIVED: Final = 1_000
"""Newest interactions of the last tenth that a question looks at; a history holds 55."""
_QUESTIONS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Plays to be foreseen.

    Attributes:
        histories: What was known just before each play, n_questions rows.
        item_keys: uint64, shape (n_questions,), the played titles.
        times_ms: uint64, shape (n_questions,).
    """

    histories: HistoryBatch
    item_keys: NDArray[np.uint64]
    times_ms: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.item_keys)

    def take(self, rows: NDArray[np.intp]) -> Questions:
        """Return some of the questions."""
        return Questions(self.histories.take(rows), self.item_keys[rows], self.times_ms[rows])


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of the answerable questions whose title is among the K best, 0 to 1; NaN of none.

    Attributes:
        n_questions: How many were answerable: the viewer has a vector.
        fold_in: By the viewer's vectors.
        popularity: By popularity, which is the same for everybody.
    """

    n_questions: int
    fold_in: float
    popularity: float


def split_in_time(log: TrainingLog) -> tuple[TrainingLog, int]:
    """Return the first nine tenths of the interactions, and how many they are."""
    n_first = len(log) * 9 // 10
    return log.take(slice(0, n_first)), n_first


def ask(log: TrainingLog, n_first: int, known_items: NDArray[np.intp]) -> Questions:
    """Return the first plays of known titles after the first `n_first` interactions.

    Args:
        log: All interactions.
        n_first: How many of them the model was trained on.
        known_items: Numbers of the items that the model knows.
    """
    played = _first_plays(log)
    played = played[(played >= n_first) & np.isin(log.items[played], known_items)]
    if len(played) > MAX_QUESTIONS:
        played = played[np.linspace(0, len(played) - 1, MAX_QUESTIONS).astype(np.intp)]
    return Questions(
        histories=_histories_before(log, played, n_first),
        item_keys=log.item_keys[log.items[played]],
        times_ms=log.words[played] >> np.uint64(16),
    )


def measure(model: ItemModel, questions: Questions) -> Recall:
    """Answer the questions with a model."""
    n_warm, hits = 0, np.zeros(2, np.int64)
    for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
        rows = np.arange(start, min(start + _QUESTIONS_AT_ONCE, len(questions)))
        block = questions.take(rows)
        vectors, is_warm = _served_vectors(block, model)
        popular = np.broadcast_to(model.popularity, (len(rows), model.n_items))
        for way, scores in enumerate((vectors @ model.item_factors.T, popular)):
            hits[way] += np.count_nonzero(is_warm & (_ranks(scores, block, model) < K))
        n_warm += int(np.count_nonzero(is_warm))
    shares = hits / n_warm if n_warm else np.full(2, np.nan)
    return Recall(n_warm, float(shares[0]), float(shares[1]))


def _first_plays(log: TrainingLog) -> NDArray[np.intp]:
    """Return where a user plays an item for the first time, and long enough; ascending."""
    viewings = np.flatnonzero(np.isin(kinds(log.words), (Kind.PLAY, Kind.BRIEF_PLAY)))
    pairs = log.users[viewings] * len(log.item_ids) + log.items[viewings]
    firsts = viewings[np.unique(pairs, return_index=True)[1]]
    return np.sort(firsts[kinds(log.words[firsts]) == Kind.PLAY])


def _histories_before(log: TrainingLog, played: NDArray[np.intp], n_first: int) -> HistoryBatch:
    """Return each player's history just before the play, without the played title.

    The first part is merged once for each user, what came later once for each question: merging
    is associative. What the played title had pushed out of a full history does not come back.
    """
    users, user_rows = np.unique(log.users[played], return_inverse=True)
    base = _merge_first_part(log, n_first, users).take(user_rows)
    base_rows, base_slots = np.nonzero(base.words)
    late_rows, late = _later_interactions(log, played, n_first)
    rows = np.concatenate([base_rows, late_rows])
    item_keys = np.concatenate(
        [base.item_keys[base_rows, base_slots], log.item_keys[log.items[late]]]
    )
    words = np.concatenate([base.words[base_rows, base_slots], log.words[late]])
    keep = item_keys != log.item_keys[log.items[played]][rows]
    return _merged(len(played), rows[keep], item_keys[keep], words[keep])


def _merge_first_part(log: TrainingLog, n_first: int, users: NDArray[np.intp]) -> HistoryBatch:
    rows_of_users = np.full(len(log.user_ids), -1, np.intp)
    rows_of_users[users] = np.arange(len(users))
    rows = rows_of_users[log.users[:n_first]]
    mine = np.flatnonzero(rows >= 0)
    return _merged(
        len(users), rows[mine], log.item_keys[log.items[:n_first][mine]], log.words[:n_first][mine]
    )


def _later_interactions(
    log: TrainingLog, played: NDArray[np.intp], n_first: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (question, interaction) of what each player did from `n_first` to before the play."""
    by_user = np.lexsort((np.arange(n_first, len(log)), log.users[n_first:]))
    place = np.empty(len(by_user), np.intp)
    place[by_user] = np.arange(len(by_user))
    ends = place[played - n_first]
    starts = np.searchsorted(log.users[n_first:][by_user], log.users[played])
    starts = np.maximum(starts, ends - MAX_ARRIVED)
    lengths = ends - starts
    questions = np.repeat(np.arange(len(played)), lengths)
    steps = np.arange(len(questions)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return questions, n_first + by_user[np.repeat(starts, lengths) + steps]


def _merged(
    n_users: int, rows: NDArray[np.intp], item_keys: NDArray[np.uint64], words: NDArray[np.uint64]
) -> HistoryBatch:
    nothing_forgotten = np.zeros(n_users, np.uint64)
    arrived = Interactions(rows, item_keys, words, nothing_forgotten)
    return merge(HistoryBatch.empty(n_users), arrived)[0]


def _served_vectors(
    questions: Questions, model: ItemModel
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the vectors that a reader would serve, and who has one."""
    factors = RecencyFoldIn()(questions.histories, model)
    newest_ms = event_times_ms(questions.histories.words[:, 0]).astype(np.float64)
    idle_s = (questions.times_ms - newest_ms) / 1000
    return blend(factors.vectors, idle_s, model.params.blend_half_life_s), factors.n_solved > 0


def _ranks(
    scores: NDArray[np.float32], questions: Questions, model: ItemModel
) -> NDArray[np.float64]:
    """Return how many unseen titles score better than the played one; ties count half."""
    histories = questions.histories
    candidates = scores.copy()
    item_rows = model.rows_of(histories.item_keys)
    is_seen = np.isin(kinds(histories.words), (Kind.PLAY, Kind.BRIEF_PLAY))
    users, slots = np.nonzero(is_seen & (item_rows != UNKNOWN_ROW))
    candidates[users, item_rows[users, slots]] = -np.inf
    played = np.take_along_axis(scores, model.rows_of(questions.item_keys)[:, None], axis=1)
    n_better = np.count_nonzero(candidates > played, axis=1)
    n_equal = np.count_nonzero(candidates == played, axis=1)
    ranks: NDArray[np.float64] = n_better + (n_equal - 1) / 2
    return ranks
