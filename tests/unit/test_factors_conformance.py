"""What a learner must do to go into service, and what each fault is told."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_learners import Answering, Sound
from worlds import item_model

from streamer.errors import LearnerError
from streamer.factors import BUILT_INS, FoldInParams, ItemModel, ask, check_learner, load_learner
from streamer.factors.conformance import N_USERS, histories_for
from streamer.history import CAPACITIES, N_SLOTS, HistoryBatch

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_learner.py"
MODEL = item_model(n_items=300)
HISTORIES = histories_for(MODEL)


def test_the_histories_have_every_case_in_them():
    assert len(HISTORIES) == N_USERS
    assert HISTORIES.counts[:2].tolist() == [0, N_SLOTS]
    is_known = MODEL.rows_of(HISTORIES.item_keys) >= 0
    is_used = HISTORIES.words != 0
    assert (is_used & ~is_known)[2].sum() == HISTORIES.counts[2] > 0
    assert not (is_used & is_known)[2].any()
    assert (is_used & is_known)[4:].any(axis=1).all()
    assert CAPACITIES.sum() == N_SLOTS


def test_the_same_model_gets_the_same_histories():
    again = histories_for(item_model(n_items=300))
    np.testing.assert_array_equal(again.words, HISTORIES.words)


@pytest.mark.parametrize("n_items", [1, 2, 300])
@pytest.mark.parametrize("name", BUILT_INS)
def test_built_ins_conform_with_large_and_tiny_models(name, n_items):
    check_learner(load_learner(name), item_model(n_items=n_items))


@pytest.mark.parametrize("name", BUILT_INS)
def test_built_ins_conform_with_parameters_that_no_float32_can_solve(name):
    params = FoldInParams(alpha=5e8, regularization=1e-3)
    check_learner(load_learner(name), replace_params(item_model(n_items=50), params))


def replace_params(model, params):
    return ItemModel.of(1, params, model.item_ids, model.item_factors, model.popularity)


def test_the_example_of_the_documentation_conforms():
    spec = importlib.util.spec_from_file_location("own_learner", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    learner = module.LastThree()
    check_learner(learner, MODEL)
    assert learner(HISTORIES, MODEL).n_solved.max() == 3


def test_a_sound_learner_passes():
    check_learner(Sound(), MODEL)


def changed(**columns):
    """A learner that changes parts of a sound answer."""
    return Answering(
        lambda answer, histories, model: replace(
            answer, **{name: change(getattr(answer, name)) for name, change in columns.items()}
        )
    )


def at_row(row, value):
    def change(array):
        changed = array.copy()
        if len(changed) > row:
            changed[row] = value
        return changed

    return change


FAULTS = {
    "no answer": (Answering(lambda *_: None), "answered a NoneType; expected a UserFactors"),
    "a list": (changed(vectors=list), "vectors as a list; expected float32 of shape"),
    "float64": (
        changed(vectors=np.float64),
        r"vectors as float64 of shape \(32, 1, 8\); expected float32 of shape \(32, 1, 8\)",
    ),
    "a table": (
        changed(vectors=lambda vectors: vectors[:, 0]),
        r"vectors as float32 of shape \(32, 8\); expected float32 of shape \(32, 2, 8\)",
    ),
    "three vectors": (
        changed(vectors=lambda vectors: np.repeat(vectors, 3, axis=1)),
        r"of shape \(32, 3, 8\); expected float32 of shape \(32, 2, 8\)",
    ),
    "no vector": (
        changed(vectors=lambda vectors: vectors[:, :0]),
        r"of shape \(32, 0, 8\); expected float32 of shape \(32, 1, 8\)",
    ),
    "too few users": (
        changed(vectors=lambda vectors: vectors[1:]),
        r"of shape \(31, 1, 8\); expected float32 of shape \(32, 1, 8\)",
    ),
    "small counts": (
        changed(n_solved=np.int32),
        r"n_solved as int32 of shape \(32,\); expected int64 of shape \(32,\)",
    ),
    "numbers for verdicts": (
        changed(is_rejected=np.uint8),
        r"is_rejected as uint8 of shape \(32,\); expected bool of shape \(32,\)",
    ),
    "a negative count": (
        changed(n_solved=at_row(3, -1)),
        r"n_solved -1 for a history of \d+ entries; expected how many of them it learned from",
    ),
    "a count of nothing": (changed(n_solved=at_row(0, 1)), "n_solved 1 for a history of 0 entries"),
    "NaN": (changed(vectors=at_row(5, np.nan)), "NaN or infinity for 1 of 32 users without"),
    "infinity": (changed(vectors=at_row(5, -np.inf)), "NaN or infinity for 1 of 32 users without"),
    "a vector of nothing": (
        changed(vectors=at_row(0, 1.0)),
        "gave a vector to users of whom it learned nothing",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_of_another_form_is_refused_and_told_what_is_expected(fault):
    learner, message = FAULTS[fault]
    with pytest.raises(LearnerError, match=f"learner 'answering' .*{message}"):
        check_learner(learner, MODEL)


def raise_for(when):
    def change(answer, histories, model):
        if when(histories):
            raise RuntimeError("no\nsecond line")
        return answer

    return Answering(change)


@pytest.mark.parametrize(
    "when",
    [
        lambda histories: len(histories) == 0,
        lambda histories: (histories.counts == N_SLOTS).any(),
        lambda histories: len(histories) == 1,
    ],
)
def test_an_exception_is_told_with_its_first_line_and_kept_as_the_cause(when):
    with pytest.raises(LearnerError, match=r"raised RuntimeError: no$") as caught:
        check_learner(raise_for(when), MODEL)
    assert caught.value.reason == "raised"
    assert isinstance(caught.value.__cause__, RuntimeError)


def random_numbers(answer, histories, model):
    noise = np.random.default_rng().normal(size=answer.vectors.shape)
    return replace(answer, vectors=(answer.vectors * (1 + 1e-6 * noise)).astype(np.float32))


def centered(answer, histories, model):
    mean = answer.vectors.mean(axis=0) if len(histories) else np.float32(0)
    vectors = np.where(answer.n_solved[:, None, None] > 0, answer.vectors - mean, np.float32(0))
    return replace(answer, vectors=vectors.astype(np.float32))


def by_position(answer, histories, model):
    scale = np.arange(1, len(histories) + 1, dtype=np.float32)[:, None, None]
    return replace(answer, vectors=answer.vectors * scale)


class Remembering(Sound):
    name = "remembering"

    def __init__(self):
        self.n_calls = 0

    def __call__(self, histories, model):
        self.n_calls += 1
        answer = super().__call__(histories, model)
        return replace(answer, vectors=answer.vectors * np.float32(self.n_calls))


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (Answering(random_numbers), "asked twice, answered differently: other vectors, up to"),
        (Remembering(), "asked twice, answered differently: other vectors"),
        (Answering(by_position), "asked in another order, answered differently: other vectors"),
        (Answering(centered), "asked about alone, answered differently: other vectors"),
        (
            Answering(lambda answer, histories, _: two_vectors_if(answer, len(histories) > 1)),
            "asked about alone, answered differently: 2 vectors a user, then 1",
        ),
        (
            Answering(lambda answer, h, _: replace(answer, is_rejected=at_first(answer, h))),
            "asked in another order, answered differently: another is_rejected",
        ),
        (
            Answering(lambda answer, h, _: replace(answer, n_solved=h.counts * (len(h) > 1))),
            "asked about alone, answered differently: another n_solved",
        ),
    ],
)
def test_an_answer_that_depends_on_anything_else_is_refused(learner, message):
    with pytest.raises(LearnerError, match=message) as caught:
        check_learner(learner, MODEL)
    assert caught.value.reason == "not_pure"


def two_vectors_if(answer, is_true):
    return replace(answer, vectors=np.repeat(answer.vectors, 1 + is_true, axis=1))


def at_first(answer, histories):
    is_rejected = answer.is_rejected.copy()
    is_rejected[:1] = len(histories) > 0
    return is_rejected


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda histories, model: histories.words.sort(axis=1), r"histories\.words"),
        (lambda histories, model: model.item_factors.fill(1), r"model\.item_factors"),
        (lambda histories, model: model.strength_table.fill(1), r"model\.strength_table"),
    ],
)
def test_what_is_given_belongs_to_others(change, name):
    def changing(answer, histories, model):
        change(histories, model)
        return answer

    with pytest.raises(LearnerError, match=f"changed {name}, which belongs to others; copy it"):
        check_learner(Answering(changing), item_model())


def test_rejected_rows_may_hold_anything():
    def reject(answer, histories, model):
        is_rejected = histories.counts > 9
        vectors = np.where(is_rejected[:, None, None], np.nan, answer.vectors).astype(np.float32)
        return replace(answer, vectors=vectors, is_rejected=is_rejected)

    check_learner(Answering(reject), MODEL)


def test_asking_hands_a_sound_answer_on_as_it_is():
    answer = Sound()(HISTORIES, MODEL)
    assert ask(Answering(lambda *_: answer), HISTORIES, MODEL) is answer
    assert ask(Sound(), HistoryBatch.empty(0), MODEL).vectors.shape == (0, 1, 8)
