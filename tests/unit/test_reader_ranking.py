import numpy as np
import pytest

from streamer.events import Kind, Thumb
from streamer.factors import FoldInParams, ItemModel
from streamer.history import HistoryBatch, item_key, pack_word
from streamer.reader.live_model import ServedModel
from streamer.reader.ranking import best_rows, excluded_rows, rank_rows, score, top_k_many
from streamer.reader.read import Status, UserRead, blend_many

NOW = 1_700_000_000_000
# One axis a taste: titles of the first are crime, those of the second are comedy.
ITEMS = {"c1": (0.9, 0.0), "c2": (0.8, 0.1), "h1": (0.0, 0.9), "h2": (0.1, 0.8), "dull": (0, 0)}
POPULARITY = (1, 2, 5, 2, 9)


def served_model(items=None, half_life_s=1800.0):
    items = ITEMS if items is None else items
    model = ItemModel.of(
        5,
        FoldInParams(alpha=10.0, regularization=1.0, blend_half_life_s=half_life_s),
        list(items),
        np.array(list(items.values()), np.float32),
        np.array(POPULARITY[: len(items)], np.float32),
    )
    return ServedModel(model, 1)


@pytest.fixture
def served():
    return served_model()


def read_of(served, vectors=None, status=None, entries=None, idle_ms=0):
    history = None
    if entries is not None:
        history = HistoryBatch.empty(1)
        for slot, (item_id, kind, value) in enumerate(entries):
            history.item_keys[0, slot] = item_key(item_id)
            history.words[0, slot] = pack_word(NOW - slot, value, kind)
        history.counts[0] = len(entries)
    return UserRead(
        user_id="u-1",
        status=status or (Status.FRESH if vectors is not None else Status.COLD),
        age_seconds=1.0,
        as_of_ms=NOW - idle_ms,
        written_ms=NOW,
        model_id=5,
        generation=1,
        vectors=None if vectors is None else np.array(vectors, np.float32),
        history=history,
        error=None,
        served=served,
    )


def top(read, k=20, *, exclude_seen=True):
    return top_k_many([read], k, NOW, exclude_seen=exclude_seen)[0]


CRIME = [[1.0, 0.0], [1.0, 0.0]]
COMEDY = [[0.0, 1.0], [0.0, 1.0]]


def test_titles_are_ordered_by_their_product_with_the_vector(served):
    answer = top(read_of(served, CRIME))
    assert answer.item_ids == ("c1", "c2", "h2", "h1", "dull")
    np.testing.assert_allclose(answer.scores, [0.9, 0.8, 0.1, 0.0, 0.0], atol=1e-6)
    assert (answer.status, answer.model_id, answer.age_seconds) == (Status.FRESH, 5, 1.0)


def test_at_most_k_titles_are_returned(served):
    assert top(read_of(served, CRIME), k=2).item_ids == ("c1", "c2")
    assert top(read_of(served, CRIME), k=0).item_ids == ()
    assert len(top(read_of(served, CRIME), k=1000).item_ids) == len(ITEMS)
    assert top(read_of(served), k=0).item_ids == ()


def test_the_blend_of_now_decides(served):
    read = read_of(served, [[0.0, 3.0], [7.0, 0.0]], idle_ms=1_800_000)
    # One half-life after the last event both directions count half.
    np.testing.assert_allclose(read.vector(NOW), [0.5, 0.5])
    assert top_k_many([read], 1, NOW - 1_800_000, exclude_seen=False)[0].item_ids == ("h1",)
    assert top_k_many([read], 1, NOW + 10**9, exclude_seen=False)[0].item_ids == ("c1",)


def test_the_half_life_is_the_models():
    read = read_of(served_model(half_life_s=60.0), [[0.0, 3.0], [7.0, 0.0]], idle_ms=60_000)
    np.testing.assert_allclose(read.vector(NOW), [0.5, 0.5])


def test_a_read_without_a_model_is_blended_with_30_minutes():
    read = read_of(None, [[0.0, 3.0], [7.0, 0.0]], idle_ms=1_800_000)
    np.testing.assert_allclose(read.vector(NOW), [0.5, 0.5])


def test_what_was_played_or_hidden_is_left_out(served):
    entries = [("c1", Kind.PLAY, 190), ("h1", Kind.THUMB, Thumb.DOWN)]
    answer = top(read_of(served, CRIME, entries=entries))
    assert answer.item_ids == ("c2", "h2", "dull")


def test_what_was_only_looked_at_liked_or_left_at_once_stays(served):
    entries = [
        ("c1", Kind.BRIEF_PLAY, 3),
        ("c2", Kind.DETAIL_VIEW, 0),
        ("h1", Kind.THUMB, Thumb.UP),
        ("h2", Kind.MY_LIST, 1),
        ("unheard of", Kind.PLAY, 200),
    ]
    assert len(top(read_of(served, CRIME, entries=entries)).item_ids) == len(ITEMS)


def test_a_viewer_who_has_seen_everything_gets_nothing(served):
    entries = [(item_id, Kind.PLAY, 200) for item_id in ITEMS]
    assert top(read_of(served, CRIME, entries=entries)).item_ids == ()
    assert top(read_of(served, entries=entries)).item_ids == ()


def test_seen_titles_stay_when_that_is_asked_for(served):
    read = read_of(served, CRIME, entries=[("c1", Kind.PLAY, 190)])
    assert top(read, k=1, exclude_seen=False).item_ids == ("c1",)


def test_a_cold_viewer_gets_what_is_popular_without_what_was_seen(served):
    answer = top(read_of(served), k=3)
    assert answer.item_ids == ("dull", "h1", "c2")
    assert answer.scores.tolist() == [9.0, 5.0, 2.0]
    assert answer.status is Status.COLD
    seen = read_of(served, entries=[("dull", Kind.PLAY, 200)])
    assert top(seen, k=3).item_ids == ("h1", "c2", "h2")


def test_without_a_model_there_are_no_titles_and_the_answer_says_so():
    answer = top(read_of(None, CRIME))
    assert (answer.item_ids, answer.status, answer.error) == ((), Status.DEGRADED, "no_model")


def test_many_viewers_get_what_each_of_them_gets_alone(served, monkeypatch):
    monkeypatch.setattr("streamer.reader.ranking.MAX_SCORES_AT_ONCE", 10)  # blocks of 2 viewers
    other = served_model({"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)})
    rng = np.random.default_rng(5)
    reads = [
        read_of(served, rng.normal(size=(2, 2)), entries=[("c1", Kind.PLAY, 200)]),
        read_of(other, rng.normal(size=(2, 3))),
        read_of(served),
        read_of(None),
        read_of(served, rng.normal(size=(2, 2))),
        read_of(served, rng.normal(size=(2, 2))),
        read_of(other, rng.normal(size=(2, 3))),
    ]
    together = top_k_many(reads, 3, NOW, exclude_seen=True)
    for read, answer in zip(reads, together, strict=True):
        alone = top(read, k=3)
        assert answer.item_ids == alone.item_ids
        np.testing.assert_allclose(answer.scores, alone.scores, rtol=1e-6)
    for read, vector in zip(reads, blend_many(reads, NOW), strict=True):
        np.testing.assert_equal(vector, read.vector(NOW))


def test_nobody_is_ranked_in_an_empty_list():
    assert top_k_many([], 5, NOW, exclude_seen=True) == []


def test_the_best_rows_are_those_of_a_full_sort():
    rng = np.random.default_rng(6)
    for n in (1, 7, 300):
        scores = rng.normal(size=n).astype(np.float32)
        for k in (1, 5, n, n + 3):
            assert best_rows(scores, k).tolist() == np.argsort(-scores)[:k].tolist()


def test_equal_scores_are_in_row_order():
    assert best_rows(np.array([1, 3, 3, 1, 3], np.float32), 5).tolist() == [1, 2, 4, 0, 3]


def test_a_history_without_known_titles_excludes_nothing(served):
    assert excluded_rows(read_of(served, entries=[("unheard of", Kind.PLAY, 9)])).tolist() == []
    assert excluded_rows(read_of(served)).tolist() == []


def test_titles_are_scored_in_the_order_asked_for(served):
    scores = score(read_of(served, CRIME), ["h1", "c1", "unheard of", "c1"], NOW)
    np.testing.assert_allclose(scores, [0.0, 0.9, -np.inf, 0.9], atol=1e-6)
    assert scores.dtype == np.float32


def test_a_cold_viewers_scores_are_popularity(served):
    scores = score(read_of(served), ["h1", "unheard of"], NOW)
    assert scores.tolist() == [5.0, -np.inf]


def test_without_a_model_no_title_is_known():
    assert score(read_of(None, CRIME), ["h1"], NOW).tolist() == [-np.inf]
    assert score(read_of(None, CRIME), [], NOW).tolist() == []


def test_rows_are_ordered_by_taste(served):
    page = {"funny": ["h1", "h2"], "dark": ["c1", "c2"], "both": ["c1", "h1"]}
    assert rank_rows(read_of(served, CRIME), page, NOW) == ["dark", "both", "funny"]
    assert rank_rows(read_of(served, COMEDY), page, NOW) == ["funny", "both", "dark"]


def test_a_rows_best_four_titles_decide_whatever_comes_after_them(served):
    page = {
        "four": ["c1", "c1", "c1", "c1"],
        "long": ["c2"] * 50 + ["c1"] * 4,
        "three": ["c1", "c1", "c1"],
    }
    assert rank_rows(read_of(served, CRIME), page, NOW) == ["four", "long", "three"]


def test_one_good_title_does_not_lift_an_otherwise_empty_row(served):
    page = {"lonely": ["c1"], "solid": ["c2", "c2", "c2"]}
    assert rank_rows(read_of(served, CRIME), page, NOW) == ["solid", "lonely"]


def test_rows_without_known_titles_come_last_in_their_order(served):
    page = {"new": ["x", "y"], "empty": [], "dark": ["c1"]}
    against_crime = [[-1.0, 0.0], [-1.0, 0.0]]
    assert rank_rows(read_of(served, against_crime), page, NOW) == ["dark", "new", "empty"]


def test_a_page_of_no_rows_stays_one(served):
    assert rank_rows(read_of(served, CRIME), {}, NOW) == []


def test_who_it_is_about_stays_out_of_the_logs(served):
    read = read_of(served, CRIME)
    assert "u-1" not in repr(read)
    assert "u-1" not in repr(top(read))
