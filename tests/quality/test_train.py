"""A model that was trained on a small log of viewers with known taste must know that taste."""

import json
import random

import numpy as np
import pytest

from streamer.models import load_model, write_model
from streamer.models.als import AlsPlan
from streamer.models.train import GRIDS, TrainingPlan, train
from streamer.models.training_log import collect_log

pytest.importorskip("implicit", reason="not run: streamer[train] is not installed")

T0 = 1_700_000_000_000
MINUTE = 60_000
N_GENRES, TITLES_OF_GENRE = 8, 40
RECALL_FLOOR = 0.40
ADVANTAGE_FLOOR = 3.0
"""Times the recall of popularity."""


def genre_log(seed):
    """Yield lines of 300 viewers who mostly watch one of their two genres in a sitting."""
    rng = np.random.default_rng(seed)
    popularity = 1 / (np.arange(TITLES_OF_GENRE) + 5)
    popularity /= popularity.sum()
    tastes = rng.integers(N_GENRES, size=(300, 2))
    for sitting in range(2_500):
        user = int(rng.integers(300))
        genre = tastes[user, int(rng.random() < 0.3)]
        for pick in range(int(rng.integers(1, 5))):
            watched_genre = genre if rng.random() < 0.85 else rng.integers(N_GENRES)
            title = f"g{watched_genre}-t{rng.choice(TITLES_OF_GENRE, p=popularity)}"
            is_liked = watched_genre in tastes[user]
            time_ms = T0 + (sitting * 10 + pick) * MINUTE
            base = {"user_id": f"u{user}", "item_id": title}
            yield json.dumps({**base, "type": "detail_view", "event_time": time_ms})
            yield json.dumps(
                {
                    **base,
                    "type": "play_stop",
                    "event_time": time_ms + MINUTE // 2,
                    "watched_s": 2000 if is_liked else 200,
                    "duration_s": 2000,
                }
            )


def trained_on(lines, grid="small"):
    log = collect_log((line.encode(), None) for line in lines)
    plan = TrainingPlan(AlsPlan(n_factors=16, n_iterations=8, seed=7), 3, GRIDS[grid])
    return train(log, plan, lambda *_: None)


def write(trained, folder):
    return write_model(
        folder,
        params=trained.params,
        item_ids=trained.item_ids,
        item_factors=trained.item_factors,
        popularity=trained.popularity,
    )


@pytest.fixture(scope="module")
def lines():
    return list(genre_log(1))


@pytest.fixture(scope="module")
def trained(lines):
    return trained_on(lines)


def test_recall_is_above_its_floor_and_far_above_popularity(trained):
    recall = trained.chosen.recall
    assert recall.n_questions > 300
    assert recall.fold_in > RECALL_FLOOR
    assert recall.fold_in > ADVANTAGE_FLOOR * recall.popularity


def test_titles_of_one_genre_are_near_each_other(trained):
    units = trained.item_factors / np.linalg.norm(trained.item_factors, axis=1, keepdims=True)
    genres = np.array([item_id.split("-")[0] for item_id in trained.item_ids])
    cosines = units @ units.T
    is_same = genres[:, None] == genres
    assert cosines[is_same].mean() > cosines[~is_same].mean() + 0.3


def test_the_chosen_pair_is_the_best_of_the_grid(trained):
    tried = trained.provenance["recall_at_20"]
    assert [(point["alpha"], point["regularization"]) for point in tried] == list(GRIDS["small"])
    best = max(tried, key=lambda point: point["fold_in"])
    assert (trained.params.alpha, trained.params.regularization) == (
        best["alpha"],
        best["regularization"],
    )


def test_training_twice_gives_the_same_model(lines, trained, tmp_path):
    first, again = write(trained, tmp_path / "1"), write(trained_on(lines), tmp_path / "2")
    assert first == again


def test_the_order_of_the_log_and_repeated_lines_do_not_matter(lines, trained, tmp_path):
    shuffled = [*lines, *lines[::3]]
    random.Random(3).shuffle(shuffled)
    assert write(trained, tmp_path / "1") == write(trained_on(shuffled), tmp_path / "2")


def test_a_trained_model_loads(trained, tmp_path):
    write(trained, tmp_path / "m")
    assert load_model(tmp_path / "m").n_items == len(trained.item_ids) > 200


@pytest.mark.parametrize("n_viewers", [3, 12])
def test_a_log_that_asks_no_question_takes_the_first_pair(n_viewers):
    """Three: no title is known after nine tenths. Twelve: nobody plays."""
    lines = [
        f'{{"type": "my_list_add", "user_id": "u{n}", "item_id": "a", "event_time": {T0 + n}}}'
        for n in range(n_viewers)
    ]
    trained = trained_on(lines)
    assert trained.item_ids == ["a"]
    assert trained.popularity.tolist() == [0.0]
    assert trained.chosen.recall.n_questions == 0
    assert (trained.params.alpha, trained.params.regularization) == GRIDS["small"][0]
    assert trained.facts()["recall_at_20"] is None
