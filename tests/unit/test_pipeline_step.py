"""`plan` by example: models that come and go, learners that fail, users who are forgotten."""

import numpy as np
import oracle
import pytest
from own_learners import BAD_ITEM, Constant, ShyOfOneItem

from streamer.factors import FeatureDtype, FoldInParams, ItemModel, RecencyFoldIn, load_learner
from streamer.factors import kernels as factor_kernels
from streamer.history import ABSENT_DIGEST, HistoryBatch, Interactions, Outcome, decode, item_key
from streamer.history import kernels as history_kernels
from streamer.pipeline.step import NO_GENERATION, FeatureFormat, Known, LiveModel, plan, warm_up

NOON_MS = 1_764_000_000_000
FORMAT = FeatureFormat(FeatureDtype.F32, NOON_MS + 1)
MODEL = ItemModel.of(
    9,
    FoldInParams(alpha=1.0, regularization=1.0),
    ["a", "b"],
    np.eye(2, dtype=np.float32),
    np.zeros(2, np.float32),
)


def live(generation=1, learner=None, variant="default"):
    return LiveModel(variant, generation, MODEL, learner or RecencyFoldIn())


def view(item_id, time_ms=NOON_MS):
    return oracle.Interaction(item_key(item_id), oracle.DETAIL_VIEW, time_ms, 0)


def arriving(*of_users, forgotten=None):
    """Evidence of one list of interactions a user."""
    pairs = [(row, each) for row, some in enumerate(of_users) for each in some]
    return Interactions(
        np.array([row for row, _ in pairs], np.intp),
        np.array([each.item_key for _, each in pairs], np.uint64),
        np.array([each.word for _, each in pairs], np.uint64),
        np.array(forgotten or [0] * len(of_users), np.uint64),
    )


def stored(*states, generation=NO_GENERATION):
    histories, digests, is_broken = decode([state and state.to_bytes() for state in states])
    assert not is_broken.any()
    return Known(histories, digests, {"default": np.full(len(states), generation)})


def test_a_new_user_is_written_and_expected_to_be_absent():
    step = plan(["u"], Known.nothing(1), arriving([view("a")]), [live()], FORMAT)
    assert step.writes.expected_digests.tolist() == [ABSENT_DIGEST]
    assert step.writes.histories == [oracle.State().learn([view("a")]).to_bytes()]
    assert step.outcomes.tolist() == [Outcome.NEW]
    assert not step.writes.is_forgotten[0]
    assert not step.writes.is_tombstone[0]


def test_a_repetition_is_compared_in_the_store_but_not_written():
    state = oracle.State().learn([view("a")])
    step = plan(["u"], stored(state, generation=1), arriving([view("a")]), [live()], FORMAT)
    assert step.writes.histories == [b""]
    assert step.writes.features == {"default": [b""]}
    assert step.writes.expected_digests.tolist() == [state.digest]
    assert step.n_folded == {"default": 0}


def test_without_a_model_histories_are_kept_and_features_left_alone():
    step = plan(["u"], Known.nothing(1), arriving([view("a")]), [], FORMAT)
    assert step.writes.histories[0]
    assert (step.writes.features, step.writes.generations) == ({}, {})
    assert (step.n_folded, step.n_fold_rejected) == ({}, {})
    assert step.after.generations_of("default").tolist() == [NO_GENERATION]
    then = plan(["u"], step.after, arriving([]), [live(generation=3)], FORMAT)
    assert then.writes.histories == [b""]
    assert oracle.read_features(then.writes.features["default"][0]).generation == 3


@pytest.mark.parametrize("known_generation", [NO_GENERATION, 1, 3])
def test_users_of_any_other_generation_are_folded_in_again(known_generation):
    state = oracle.State().learn([view("a")])
    known = stored(state, generation=known_generation)
    step = plan(["u"], known, arriving([]), [live(generation=2)], FORMAT)
    assert step.writes.histories == [b""]
    features = oracle.read_features(step.writes.features["default"][0])
    assert (features.generation, features.history_digest) == (2, state.digest)
    assert step.after.generations_of("default").tolist() == [2]
    assert step.writes.generations == {"default": 2}


def test_a_changed_history_is_not_known_to_have_features_until_it_is_folded_in():
    state = oracle.State().learn([view("a")])
    known = stored(state, generation=1)
    step = plan(["u"], known, arriving([view("b", NOON_MS + 1)]), [], FORMAT)
    assert step.after.generations_of("default").tolist() == [NO_GENERATION]


@pytest.mark.parametrize(
    ("learner", "dtype"),
    [
        (Constant(np.nan, is_rejected=True), FeatureDtype.F32),
        (Constant(np.inf, is_rejected=True), FeatureDtype.F16),
        (Constant(1.0, is_rejected=True), FeatureDtype.F32),
    ],
)
def test_a_failed_solve_leaves_features_as_they_are_and_is_tried_again(learner, dtype):
    broken = live(generation=2, learner=learner)
    state = oracle.State().learn([view("a")])
    known = stored(state, state, generation=1)
    evidence = arriving([view("b")], [])
    step = plan(["changed", "same"], known, evidence, [broken], FeatureFormat(dtype, NOON_MS))
    assert [bool(value) for value in step.writes.histories] == [True, False]
    assert step.writes.features == {"default": [b"", b""]}
    assert step.n_folded == step.n_fold_rejected == {"default": 2}
    assert step.after.generations_of("default").tolist() == [NO_GENERATION, 1]
    mended = plan(["changed", "same"], step.after, evidence, [live(generation=2)], FORMAT)
    assert all(mended.writes.features["default"])


def test_a_failed_row_does_not_hold_its_neighbors_back():
    learner = Constant([1.0, np.nan, 2.0], is_rejected=[False, True, False])
    evidence = arriving([view("a")], [view("a")], [view("a")])
    step = plan(["u", "v", "w"], Known.nothing(3), evidence, [live(learner=learner)], FORMAT)
    assert [bool(value) for value in step.writes.features["default"]] == [True, False, True]
    assert step.after.generations_of("default").tolist() == [1, NO_GENERATION, 1]
    assert (step.n_folded, step.n_fold_rejected) == ({"default": 3}, {"default": 1})
    assert oracle.read_features(step.writes.features["default"][2]).vectors.max() == 2


@pytest.mark.parametrize(
    ("learner", "reason"),
    [
        (Constant([1.0, np.nan]), "not_finite"),
        (Constant(1.0, n_vectors=3), "wrong_form"),
        (ShyOfOneItem(), "raised"),
    ],
)
def test_a_learner_that_fails_keeps_every_history_and_replaces_nobodys_features(learner, reason):
    state = oracle.State().learn([view("a")])
    known = stored(state, state, generation=1)
    failing = live(generation=2, learner=learner)
    step = plan(["u", "v"], known, arriving([view("b")], [view(BAD_ITEM)]), [failing], FORMAT)
    assert all(step.writes.histories)
    assert (step.writes.features, step.n_folded, step.n_fold_rejected) == ({}, {}, {})
    assert step.after.generations_of("default").tolist() == [NO_GENERATION, NO_GENERATION]
    [failure] = step.failures
    assert failure.live is failing
    assert failure.error.reason == reason


def test_a_learner_is_not_failed_by_what_it_is_not_asked():
    step = plan(
        ["u"], Known.nothing(1), arriving([view("a")]), [live(learner=ShyOfOneItem())], FORMAT
    )
    assert step.failures == []
    assert len(oracle.read_features(step.writes.features["default"][0]).vectors) == 1


def test_a_forgotten_user_becomes_a_tombstone_and_stays_one():
    state = oracle.State().learn([view("a")])
    known = stored(state, generation=1)
    evidence = arriving([view("b", NOON_MS)], forgotten=[NOON_MS])
    step = plan(["u"], known, evidence, [live()], FORMAT)
    assert step.writes.histories == [oracle.State({}, NOON_MS).to_bytes()]
    assert len(step.writes.histories[0]) == 24
    assert step.writes.features == {"default": [b""]}
    assert (step.writes.is_forgotten[0], step.writes.is_tombstone[0]) == (True, True)
    again = plan(["u"], step.after, evidence, [live()], FORMAT)
    assert again.writes.histories == [b""]
    assert (again.writes.is_forgotten[0], again.writes.is_tombstone[0]) == (False, True)
    assert again.outcomes.tolist() == [Outcome.FORGOTTEN]


def test_a_forgotten_user_who_comes_back_loses_old_features_and_gets_new_ones():
    known = stored(oracle.State().learn([view("a")]), generation=1)
    evidence = arriving([view("b", NOON_MS + 1)], forgotten=[NOON_MS])
    step = plan(["u"], known, evidence, [live()], FORMAT)
    assert (step.writes.is_forgotten[0], step.writes.is_tombstone[0]) == (True, False)
    features = oracle.read_features(step.writes.features["default"][0])
    assert (features.n_interactions, features.as_of_ms) == (1, NOON_MS + 1)


def test_forgetting_a_user_nobody_knows_leaves_a_tombstone():
    step = plan(["u"], Known.nothing(1), arriving([], forgotten=[NOON_MS]), [live()], FORMAT)
    assert step.writes.histories == [oracle.State({}, NOON_MS).to_bytes()]
    assert step.writes.is_forgotten[0]
    assert step.n_folded == {"default": 0}


def test_a_user_who_never_did_anything_stays_absent():
    step = plan(["u"], Known.nothing(1), arriving([]), [live()], FORMAT)
    assert step.writes.histories == [b""]
    assert step.after.digests.tolist() == [ABSENT_DIGEST]


def test_a_stored_header_without_entries_and_forgets_is_never_overwritten_by_a_broken_one():
    """Valid bytes, though no worker leaves them; whatever is written instead must be valid too."""
    known = stored(oracle.State())
    step = plan(["u"], known, arriving([]), [live()], FORMAT)
    assert step.writes.histories[0] == b"" or oracle.is_sound(step.writes.histories[0])


def test_a_batch_of_nobody_is_a_plan_of_nothing():
    step = plan([], Known.nothing(0), arriving(), [live()], FORMAT)
    assert (list(step.writes.histories), step.writes.features) == ([], {"default": []})


def test_features_carry_their_variants_name():
    evidence = arriving([view("a")])
    step = plan(["u"], Known.nothing(1), evidence, [live(variant="rows-b")], FORMAT)
    assert list(step.writes.features) == list(step.n_folded) == ["rows-b"]


def test_every_variant_is_folded_in_from_the_same_history_each_as_if_alone():
    evidence = arriving([view("a")], [view("b")])
    steps = load_learner("sgd_replay")
    lives = [live(generation=3), live(generation=5, learner=steps, variant="s")]
    step = plan(["u", "v"], Known.nothing(2), evidence, lives, FORMAT)
    assert step.writes.generations == {"default": 3, "s": 5}
    assert step.n_folded == {"default": 2, "s": 2}
    for each in lives:
        alone = plan(["u", "v"], Known.nothing(2), evidence, [each], FORMAT)
        assert step.writes.features[each.variant] == alone.writes.features[each.variant]
        assert step.writes.histories == alone.writes.histories
        assert step.after.generations_of(each.variant).tolist() == [each.generation] * 2


def test_only_the_variant_that_is_behind_is_folded_in():
    known = stored(oracle.State().learn([view("a")]), generation=1)
    step = plan(["u"], known, arriving([]), [live(generation=1), live(variant="new")], FORMAT)
    assert step.n_folded == {"default": 0, "new": 1}
    assert step.writes.features["default"] == [b""]
    assert oracle.read_features(step.writes.features["new"][0]).generation == 1


def test_a_learner_that_fails_keeps_nobody_elses_features_back():
    lives = [live(learner=ShyOfOneItem(), variant="shy"), live()]
    step = plan(["u"], Known.nothing(1), arriving([view(BAD_ITEM)]), lives, FORMAT)
    assert [failure.live.variant for failure in step.failures] == ["shy"]
    assert list(step.writes.features) == list(step.writes.generations) == ["default"]
    assert step.writes.features["default"][0]


def test_what_is_known_of_one_variant_says_nothing_of_another():
    states = [oracle.State().learn([view("a", NOON_MS + number)]) for number in range(2)]
    target = stored(*states, generation=4)
    other = Known.nothing(1)
    other.generations["b"] = np.array([9])
    target.put(np.array([1]), other)
    assert target.generations_of("default").tolist() == [4, NO_GENERATION]
    assert target.generations_of("b").tolist() == [NO_GENERATION, 9]


def test_what_is_known_can_be_taken_and_put_by_row():
    states = [oracle.State().learn([view("a", NOON_MS + number)]) for number in range(3)]
    known = stored(*states, generation=4)
    some = known.take(np.array([2, 0]))
    assert some.digests.tolist() == [states[2].digest, states[0].digest]
    target = Known.nothing(3)
    target.put(np.array([0, 1]), some)
    assert target.digests.tolist() == [states[2].digest, states[0].digest, ABSENT_DIGEST]
    assert target.generations_of("default").tolist() == [4, 4, NO_GENERATION]
    assert target.histories.counts.tolist() == [1, 1, 0]
    some.digests[:] = 0
    assert known.digests[2] == states[2].digest  # a copy, not a view


def test_an_empty_batch_of_histories_has_nothing_in_it():
    empty = HistoryBatch.empty(2)
    assert len(empty) == 2
    assert not empty.words.any()
    assert not empty.forgotten_before_ms.any()


def test_what_a_worker_calls_is_compiled_once_before_its_first_event():
    """For one type of every argument: of files, of configuration, of Redis, or made here."""
    warm_up(RecencyFoldIn())
    model = ItemModel.of(
        9,
        FoldInParams(alpha=40, regularization=1),
        ["a"],
        MODEL.item_factors[:1],
        np.zeros(1, "f4"),
    )
    evidence = arriving([view("a")], [])
    known = stored(oracle.State().learn([view("b")]), None)
    plan(["u", "v"], known, evidence, [LiveModel("default", 1, model, RecencyFoldIn())], FORMAT)
    for kernel, n_precisions in (
        (factor_kernels.fold_in, 2),
        (history_kernels.merge, 1),
        (history_kernels.digest, 1),
    ):
        assert len(kernel.signatures) == n_precisions, kernel.signatures
