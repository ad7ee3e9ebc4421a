"""The pure step against the oracle: what is written, what stays, and what is known afterwards."""

import random
import zlib

import numpy as np
import oracle
from hypothesis import given
from hypothesis import strategies as st
from strategies import BASE_MS, examples, roll_interaction, roll_item_keys, roll_state, seeds

from streamer.factors import FeatureDtype, FoldInParams, ItemModel, RecencyFoldIn
from streamer.history import Interactions, decode, encode
from streamer.pipeline.step import (
    NO_GENERATION,
    FeatureFormat,
    Known,
    LiveModel,
    count_unknown_items,
    plan,
)

ITEM_IDS = [f"title-{number}" for number in range(40)]
FACTORS = np.random.default_rng(3).normal(scale=0.3, size=(40, 8)).astype(np.float32)
PARAMS = FoldInParams(alpha=10.0, regularization=1.0)
KEYS = list(map(oracle.item_key, ITEM_IDS))
MODEL = oracle.Model(dict(zip(KEYS, FACTORS, strict=True)), PARAMS.alpha, PARAMS.regularization)
ITEM_MODEL = ItemModel.of(77, PARAMS, ITEM_IDS, FACTORS, np.zeros(40, np.float32))
GENERATION = 5
LIVE = LiveModel("default", GENERATION, ITEM_MODEL, RecencyFoldIn())
NOW_MS = BASE_MS + 60_000
FORMAT = FeatureFormat(FeatureDtype.F32, NOW_MS)


class Case:
    """Some users: what the store holds of each (None: nothing), and what arrived for them."""

    def __init__(self, seed, n_users):
        rolls = random.Random(seed)
        keys = [*KEYS[:30], *roll_item_keys(rolls, 4)]
        self.user_ids = [f"u-{number}" for number in range(n_users)]
        self.before = [self._stored(rolls, keys) for _ in self.user_ids]
        self.generations = [
            rolls.choice([NO_GENERATION, GENERATION - 1, GENERATION, GENERATION + 1])
            for _ in self.user_ids
        ]
        self.arrived = [self._arriving(rolls, keys, state) for state in self.before]
        self.forgets = [
            rolls.choice([0, 0, 0, BASE_MS + 500, BASE_MS + 2000]) for _ in self.user_ids
        ]

    @staticmethod
    def _stored(rolls, keys):
        if rolls.random() < 0.3:
            return None
        n_events = rolls.choice([0, 1, 5, 300])
        forgotten_before_ms = rolls.choice([0, BASE_MS + 500]) if n_events else BASE_MS + 500
        return roll_state(rolls, keys, n_events, 1000, forgotten_before_ms)

    @staticmethod
    def _arriving(rolls, keys, state):
        held = list(state.entries.values()) if state else []
        known = rolls.sample(held, min(len(held), rolls.randrange(3)))
        n_new = rolls.choice([0, 0, 1, 3, 40])
        return known + [roll_interaction(rolls, keys, 1000) for _ in range(n_new)]

    @property
    def known(self):
        values = [state and state.to_bytes() for state in self.before]
        histories, digests, is_broken = decode(values)
        assert not is_broken.any()
        return Known(histories, digests, {"default": np.array(self.generations, np.int64)})

    @property
    def evidence(self):
        pairs = [(row, each) for row, some in enumerate(self.arrived) for each in some]
        return Interactions(
            rows=np.array([row for row, _ in pairs], np.intp),
            item_keys=np.array([each.item_key for _, each in pairs], np.uint64),
            words=np.array([each.word for _, each in pairs], np.uint64),
            forgotten_before_ms=np.array(self.forgets, np.uint64),
        )

    def after(self, row):
        before = self.before[row] or oracle.State()
        return before.merged(oracle.State()).learn(self.arrived[row], self.forgets[row])


cases = st.builds(Case, seeds, st.integers(1, 8))


def stored_bytes(state):
    """What a store holds of a state; nothing at all of a user who never did anything."""
    return state.to_bytes() if state and (state.entries or state.forgotten_before_ms) else b""


@given(cases, st.sampled_from([[LIVE], []]))
@examples(150)
def test_what_changed_is_written_and_the_rest_is_only_compared(case, lives):
    known = case.known
    step = plan(case.user_ids, known, case.evidence, lives, FORMAT)
    assert list(step.writes.user_ids) == case.user_ids
    assert step.writes.generations == {live.variant: live.generation for live in lives}
    for row, before in enumerate(case.before):
        after = case.after(row)
        was, will_be = stored_bytes(before), stored_bytes(after)
        assert step.writes.histories[row] == (will_be if will_be != was else b"")
        assert int(step.writes.expected_digests[row]) == (before.digest if before else 0)
        assert int(step.after.digests[row]) == (after.digest if will_be else 0)
        forgotten_before = before.forgotten_before_ms if before else 0
        assert step.writes.is_forgotten[row] == (after.forgotten_before_ms != forgotten_before)
        assert step.writes.is_tombstone[row] == (not after.entries)
    after_values = encode(step.after.histories, step.after.digests)
    for row in range(len(case.user_ids)):
        assert after_values[row][16:] == case.after(row).to_bytes()[16:]


@given(cases)
@examples(100)
def test_features_are_of_the_history_that_is_written_beside_them(case):
    step = plan(case.user_ids, case.known, case.evidence, [LIVE], FORMAT)
    assert list(step.writes.features) == ["default"]
    n_folded = 0
    for row, before in enumerate(case.before):
        after = case.after(row)
        has_changed = stored_bytes(before) != stored_bytes(after)
        is_behind = has_changed or case.generations[row] != GENERATION
        value = step.writes.features["default"][row]
        if not (is_behind and after.entries):
            assert value == b""
            untouched = NO_GENERATION if has_changed else case.generations[row]
            assert step.after.generations_of("default")[row] == untouched
            continue
        n_folded += 1
        features = oracle.read_features(value)
        recent = oracle.fold_in(after, MODEL)
        lasting = oracle.fold_in(after, MODEL, floor=1.0)
        assert (
            features[:-1]
            == oracle.Features(
                dtype=1,
                n_vectors=2,
                n_factors=8,
                model_id=77,
                history_digest=after.digest,
                generation=GENERATION,
                learner_id=zlib.crc32(b"recency_fold_in"),
                as_of_ms=after.newest_first()[0].event_time_ms,
                written_ms=NOW_MS,
                n_interactions=len(after.entries),
                n_solved=recent.n_solved,
                vectors=None,
            )[:-1]
        )
        for vector, exact in zip(features.vectors, (recent, lasting), strict=True):
            limit = 1e-5 * np.linalg.norm(exact.vector)
            assert np.linalg.norm(np.float64(vector) - exact.vector) <= limit
        assert step.after.generations_of("default")[row] == GENERATION
    assert step.n_folded == {"default": n_folded}
    assert step.n_fold_rejected == {"default": 0}


@given(cases)
@examples(60)
def test_the_same_evidence_again_has_nothing_left_to_write(case):
    step = plan(case.user_ids, case.known, case.evidence, [LIVE], FORMAT)
    again = plan(case.user_ids, step.after, case.evidence, [LIVE], FORMAT)
    nothing = [b""] * len(case.user_ids)
    assert list(again.writes.histories) == list(again.writes.features["default"]) == nothing
    assert not again.writes.is_forgotten.any()
    assert again.n_folded == {"default": 0}
    np.testing.assert_array_equal(again.writes.expected_digests, step.after.digests)
    np.testing.assert_array_equal(*(each.after.generations["default"] for each in (again, step)))


@given(cases, seeds)
@examples(60)
def test_a_conflict_is_settled_from_what_the_store_holds(case, seed):
    """Another writer was first with half of the evidence: the second plan joins, and loses none."""
    rolls = random.Random(seed)
    theirs = [
        (before or oracle.State())
        .merged(oracle.State())
        .learn(rolls.sample(some, len(some) // 2), rolls.choice([0, forget]))
        for before, some, forget in zip(case.before, case.arrived, case.forgets, strict=True)
    ]
    values = [stored_bytes(state) or None for state in theirs]
    histories, digests, _ = decode(values)
    known = Known(histories, digests, {})
    step = plan(case.user_ids, known, case.evidence, [LIVE], FORMAT)
    for row, value in enumerate(values):
        assert (step.writes.histories[row] or value or b"") == stored_bytes(case.after(row))


@given(cases)
@examples(60)
def test_interactions_with_unknown_items_are_counted(case):
    n_unknown = sum(each.item_key not in KEYS for some in case.arrived for each in some)
    assert count_unknown_items(case.evidence, ITEM_MODEL) == n_unknown
