import numpy as np
import pytest
from worlds import NOW_MS, event, records

from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.prequential import hit_rates
from streamer.factors import FoldInParams, ItemModel, load_learner

N_PER_TASTE = 10


def two_tastes() -> ItemModel:
    """Titles 0 to 9 point one way, titles 10 to 19 the other; the latter are more popular."""
    random = np.random.default_rng(0)
    factors = 0.01 * random.standard_normal((2 * N_PER_TASTE, 2))
    factors[:N_PER_TASTE, 0] += 1
    factors[N_PER_TASTE:, 1] += 1
    return ItemModel.of(
        7,
        FoldInParams(alpha=10.0, regularization=0.1),
        [f"title-{row}" for row in range(2 * N_PER_TASTE)],
        factors.astype(np.float32),
        np.arange(2 * N_PER_TASTE).astype(np.float32),
    )


def rates(past, stream, k=10, learner="recency_fold_in"):
    golden = GoldenHistories()
    golden.apply(past)
    return hit_rates(golden, stream, two_tastes(), load_learner(learner), k)


@pytest.mark.parametrize("learner", ["recency_fold_in", "sgd_replay"])
def test_a_changed_taste_is_hit_by_fresh_vectors_only(learner):
    past = records(*(event("ann", f"title-{n}", NOW_MS + n) for n in range(10, 15)))
    stream = records(*(event("ann", f"title-{n}", NOW_MS + 100 + n) for n in range(8)))
    found = rates(past, stream, k=5, learner=learner)  # what is left of the old taste
    assert found.n_targets == 8
    assert found.frozen == 0
    assert found.fresh >= 0.6


def test_an_event_is_scored_before_it_is_learned():
    found = rates([], records(event("ann", "title-0")), k=1)
    assert (found.n_targets, found.fresh, found.frozen) == (1, 0.0, 0.0)


def test_a_viewer_without_a_past_gets_popularity():
    found = rates([], records(event("ann", "title-19")), k=1)
    assert (found.fresh, found.frozen) == (1.0, 1.0)


def test_a_title_that_was_opened_before_is_no_target():
    stream = records(
        event("ann", "title-0", NOW_MS, "detail_view"), event("ann", "title-0", NOW_MS + 5)
    )
    assert rates([], stream).n_targets == 1


@pytest.mark.parametrize("other", ["impression", "play_start", "my_list_add", "thumb_up"])
def test_only_contacts_are_targets(other):
    assert rates([], records(event("ann", "title-0", NOW_MS, other))).n_targets == 0


def test_titles_that_the_model_does_not_know_are_no_targets():
    assert rates([], records(event("ann", "unheard-of"))).n_targets == 0


def test_bad_records_are_passed_over():
    assert rates([], records(b"{", event("ann", "title-0"), None)).n_targets == 1
