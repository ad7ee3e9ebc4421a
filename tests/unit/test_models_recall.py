import json

import numpy as np
import pytest

from streamer.events import Kind
from streamer.factors import FoldInParams, ItemModel, RecencyFoldIn
from streamer.history import HistoryBatch, Interactions, kinds, merge
from streamer.models.recall import MAX_QUESTIONS, ask, measure, split_in_time
from streamer.models.training_log import collect_log

T0 = 1_700_000_000_000
KINDS = ("play_stop", "play_stop", "play_progress", "detail_view", "thumb_up", "thumb_down")


def line(kind, user, item, time_ms, watched_s):
    payload = {"type": kind, "user_id": user, "item_id": item, "event_time": time_ms}
    return json.dumps(payload | {"watched_s": watched_s, "duration_s": 1000}).encode(), None


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(11)
    return collect_log(
        line(
            KINDS[rng.integers(len(KINDS))],
            f"u{rng.integers(100)}",
            f"i{rng.integers(80):02d}",
            T0 + int(rng.integers(10**7)),
            int(rng.choice([10, 200, 1000])),
        )
        for _ in range(2_500)
    )


@pytest.fixture(scope="module")
def model(log):
    rng = np.random.default_rng(12)
    return ItemModel.of(
        0,
        FoldInParams(5.0, 0.5, blend_half_life_s=600.0),
        log.item_ids,
        rng.normal(size=(len(log.item_ids), 6)).astype(np.float32),
        rng.integers(1, 9, len(log.item_ids)).astype(np.float32),
    )


def naive_questions(log, n_first, known_items):
    """Yield (index, history) of each first play, one interaction after the other."""
    for index in range(n_first, len(log)):
        user, item = log.users[index], log.items[index]
        before = np.flatnonzero(log.users[:index] == user)
        mine = before[log.items[before] == item]
        is_viewing = np.isin(kinds(log.words), (Kind.PLAY, Kind.BRIEF_PLAY))
        if kinds(log.words[index : index + 1])[0] != Kind.PLAY or is_viewing[mine].any():
            continue
        if item not in known_items:
            continue
        others = np.setdiff1d(before, mine)
        history, _ = merge(
            HistoryBatch.empty(1),
            Interactions(
                np.zeros(len(others), np.intp),
                log.item_keys[log.items[others]],
                log.words[others],
                np.zeros(1, np.uint64),
            ),
        )
        yield index, history


def test_the_first_nine_tenths_are_the_older_ones(log):
    first, n_first = split_in_time(log)
    assert n_first == len(first) == len(log) * 9 // 10
    assert first.words.max() <= log.words[n_first:].min()


def test_questions_are_the_first_plays_with_what_was_known_just_before(log):
    n_first = len(log) * 9 // 10
    known_items = np.arange(0, len(log.item_ids), 2)
    questions = ask(log, n_first, known_items)
    expected = list(naive_questions(log, n_first, known_items))
    assert len(questions) == len(expected) > 10
    for row, (index, history) in enumerate(expected):
        assert questions.item_keys[row] == log.item_keys[log.items[index]]
        assert questions.times_ms[row] == log.words[index] >> np.uint64(16)
        # Exactly, because nobody here fills a group: what a title pushed out does not come back.
        assert np.array_equal(questions.histories.words[row], history.words[0])
        assert np.array_equal(questions.histories.item_keys[row], history.item_keys[0])


@pytest.mark.parametrize("k", [3, 10, 20, 40])
def test_recall_is_what_a_naive_count_of_better_titles_says(log, model, k, monkeypatch):
    monkeypatch.setattr("streamer.models.recall.K", k)
    n_first = len(log) * 9 // 10
    questions = ask(log, n_first, np.arange(len(log.item_ids)))
    hits = popular_hits = answerable = 0
    for row in range(len(questions)):
        history = questions.histories.take(np.array([row]))
        factors = RecencyFoldIn()(history, model)
        if factors.n_solved[0] == 0:
            continue
        answerable += 1
        recent, lasting = (vector / np.linalg.norm(vector) for vector in factors.vectors[0])
        idle_s = (int(questions.times_ms[row]) - int(history.words[0, 0] >> np.uint64(16))) / 1000
        share = 2 ** (-idle_s / 600.0)
        scores = model.item_factors @ (share * recent + (1 - share) * lasting)
        is_seen = np.isin(kinds(history.words[0]), (Kind.PLAY, Kind.BRIEF_PLAY))
        seen = set(history.item_keys[0][is_seen].tolist())
        title = model.item_keys.tolist().index(questions.item_keys[row])
        unseen = np.array([key not in seen for key in model.item_keys.tolist()])
        hits += np.count_nonzero(unseen & (scores > scores[title])) < k
        popularity = model.popularity
        better = np.count_nonzero(unseen & (popularity > popularity[title]))
        equal = np.count_nonzero(unseen & (popularity == popularity[title])) - 1
        popular_hits += better + equal / 2 < k
    recall = measure(model, questions)
    assert recall.n_questions == answerable > 10
    assert recall.fold_in == pytest.approx(hits / answerable)
    assert recall.popularity == pytest.approx(popular_hits / answerable)


def test_many_questions_are_thinned_out_evenly(log, monkeypatch):
    n_first = len(log) * 9 // 10
    known_items = np.arange(len(log.item_ids))
    everything = ask(log, n_first, known_items)
    monkeypatch.setattr("streamer.models.recall.MAX_QUESTIONS", 10)
    some = ask(log, n_first, known_items)
    assert len(everything) > 30
    assert len(some) == 10
    assert (some.times_ms[0], some.times_ms[-1]) == (
        everything.times_ms[0],
        everything.times_ms[-1],
    )
    assert MAX_QUESTIONS == 4_000


def test_recall_of_no_questions_is_not_a_number(log, model):
    questions = ask(log, len(log), np.arange(len(log.item_ids)))
    recall = measure(model, questions)
    assert recall.n_questions == 0
    assert np.isnan(recall.fold_in)
    assert np.isnan(recall.popularity)
