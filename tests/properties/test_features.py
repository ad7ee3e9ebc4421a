"""Feature bytes: round trips at both dtypes, rows that must not be published, and hostile bytes."""

import random

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from judges import FEATURE_NUMBERS, ensure_features_are_judged_as_by_the_oracle
from strategies import examples, seeds

from streamer.factors import (
    FeatureDtype,
    Stamp,
    UserFactors,
    decode_features,
    encode_features,
)

F16_MAX = 65_504

u32 = st.integers(0, (1 << 32) - 1)
u48 = st.integers(0, oracle.LATEST_MS)
u64 = st.integers(0, oracle.U64)
stamps = st.builds(Stamp, u64, u32, u32, st.sampled_from(FeatureDtype), u48)
shapes = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 9))
numbers = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.floats(
    -70_000, 70_000, width=32
)
vectors = shapes.flatmap(lambda shape: npst.arrays(np.float32, shape, elements=numbers))


@st.composite
def batches(draw):
    """A learner's answer with what goes beside it, one row per user."""
    table = draw(vectors)
    n_users = len(table)
    factors = UserFactors(
        table,
        n_solved=np.array(
            draw(st.lists(st.integers(0, 55), min_size=n_users, max_size=n_users)), np.int64
        ),
        is_rejected=np.array(
            draw(st.lists(st.booleans(), min_size=n_users, max_size=n_users)), bool
        ),
    )
    digests = np.array(draw(st.lists(u64, min_size=n_users, max_size=n_users)), np.uint64)
    as_of_ms = np.array(draw(st.lists(u48, min_size=n_users, max_size=n_users)), np.int64)
    counts = np.array(
        draw(st.lists(st.integers(0, 55), min_size=n_users, max_size=n_users)), np.int64
    )
    return factors, digests, as_of_ms, counts


@given(batches(), stamps)
@examples(200)
def test_features_are_the_documented_bytes_and_read_back(batch, stamp):
    factors, digests, as_of_ms, counts = batch
    with np.errstate(over="ignore", invalid="ignore"):
        stored = factors.vectors.astype(stamp.dtype.numpy)
    values, is_rejected = encode_features(factors, digests, as_of_ms, counts, stamp)
    assert len(values) == len(is_rejected) == len(factors.vectors)
    for row, value in enumerate(values):
        exact = np.float64(factors.vectors[row])
        is_finite = np.isfinite(exact).all()
        with np.errstate(invalid="ignore"):
            off_by = np.linalg.norm(np.float64(stored[row]) - exact, axis=1)
            is_near = bool((off_by <= 1e-3 * np.linalg.norm(exact, axis=1)).all())
        is_wide = is_finite and not is_near
        written = factors.vectors[row] if is_wide else stored[row]
        features = oracle.Features(
            dtype=int(FeatureDtype.F32 if is_wide else stamp.dtype),
            n_vectors=factors.vectors.shape[1],
            n_factors=factors.vectors.shape[2],
            model_id=stamp.model_id,
            history_digest=int(digests[row]),
            generation=stamp.generation,
            learner_id=stamp.learner_id,
            as_of_ms=int(as_of_ms[row]),
            written_ms=stamp.written_ms,
            n_interactions=int(counts[row]),
            n_solved=int(factors.n_solved[row]),
            vectors=written,
        )
        assert value == oracle.write_features(features)
        assert is_rejected[row] == (factors.is_rejected[row] or not is_finite)
        decoded = decode_features(value)
        assert (decoded is not None) == is_finite
        if decoded is not None:
            np.testing.assert_array_equal(decoded.vectors, np.float32(written))
            assert decoded.vectors.dtype == np.float32
            for name in FEATURE_NUMBERS:
                assert getattr(decoded, name) == getattr(features, name)


@pytest.mark.parametrize(
    ("dtype", "number", "fits"),
    [
        (FeatureDtype.F16, F16_MAX, True),
        (FeatureDtype.F16, F16_MAX + 16, True),  # as float32
        (FeatureDtype.F16, -F16_MAX - 16, True),
        (FeatureDtype.F32, F16_MAX + 16, True),
        (FeatureDtype.F32, np.nan, False),
        (FeatureDtype.F16, np.nan, False),
        (FeatureDtype.F32, np.inf, False),
    ],
)
def test_a_number_that_does_not_fit_the_dtype_rejects_its_row_alone(dtype, number, fits):
    table = np.zeros((3, 2, 4), np.float32)
    table[1, 1, 2] = number
    factors = UserFactors(table, np.ones(3, np.int64), np.zeros(3, bool))
    columns = np.zeros(3, np.uint64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    _, is_rejected = encode_features(factors, *columns, Stamp(1, 1, 1, dtype, 1))
    assert is_rejected.tolist() == [False, not fits, False]


@given(npst.arrays(np.float32, (1, 2, 64), elements=st.floats(-100, 100, width=32)))
@examples(60)
def test_half_precision_costs_little(table):
    factors = UserFactors(table, np.ones(1, np.int64), np.zeros(1, bool))
    columns = np.zeros(1, np.uint64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    [value], _ = encode_features(factors, *columns, Stamp(1, 1, 1, FeatureDtype.F16, 1))
    off_by = np.abs(decode_features(value).vectors - table[0])
    assert (off_by <= np.maximum(np.abs(table[0]) * 2.0**-11, 2.0**-25)).all()


@given(batches(), stamps, seeds, st.sampled_from(["cut", "flip", "grow", "head", "none"]))
@examples(200)
def test_any_bytes_are_features_or_nothing(batch, stamp, seed, damage):
    values, _ = encode_features(*batch, stamp)
    rolls = random.Random(seed)
    for value in [rolls.randbytes(rolls.choice([0, 63, 64, 80])), *values]:
        spoiled = bytearray(value)
        if damage == "cut":
            del spoiled[rolls.randrange(len(spoiled) + 1) :]
        elif damage == "flip" and spoiled:
            spoiled[rolls.randrange(len(spoiled))] ^= 1 << rolls.randrange(8)
        elif damage == "grow":
            spoiled += rolls.randbytes(rolls.choice([1, 2, 4, 8]))
        elif damage == "head" and spoiled:
            spoiled[rolls.randrange(min(8, len(spoiled)))] = rolls.choice([0, 1, 2, 3, 255])
        ensure_features_are_judged_as_by_the_oracle(bytes(spoiled))
