import numpy as np
import pytest

from streamer.factors import (
    FeatureDtype,
    Stamp,
    UserFactors,
    decode_features,
    encode_features,
)
from streamer.reader.feature_table import decode_table


def encode(vectors, dtype=FeatureDtype.F16, model_id=7):
    n_users = len(vectors)
    factors = UserFactors(
        vectors=np.asarray(vectors, np.float32),
        n_solved=np.arange(n_users),
        is_rejected=np.zeros(n_users, bool),
    )
    values, _ = encode_features(
        factors,
        np.arange(n_users, dtype=np.uint64) + np.uint64(2**63),
        np.arange(n_users) + 1_700_000_000_000,
        np.arange(n_users),
        Stamp(model_id, 3, 11, dtype, 1_700_000_000_005),
    )
    return values


def assert_same_verdict(blobs):
    table = decode_table(blobs)
    for row, blob in enumerate(blobs):
        one = decode_features(blob) if blob is not None else None
        if one is None or one.vectors.size == 0:
            assert table.vectors[row] is None
            assert table.is_broken[row] == (blob is not None)
            assert table.headers[row] == np.zeros((), table.headers.dtype)
            continue
        assert not table.is_broken[row]
        np.testing.assert_array_equal(table.vectors[row][0], one.vectors[0])
        np.testing.assert_array_equal(table.vectors[row][1], one.vectors[:2][-1])
        for name in ("model_id", "history_digest", "generation", "as_of_ms", "n_solved"):
            assert int(table.headers[name][row]) == getattr(one, name)


def test_no_users_are_no_rows():
    table = decode_table([])
    assert len(table.headers) == len(table.vectors) == len(table.is_broken) == 0


def test_a_batch_reads_as_each_of_its_values_alone():
    assert_same_verdict(encode(np.random.default_rng(1).normal(size=(40, 2, 8))))


def test_values_of_several_layouts_may_be_mixed():
    rng = np.random.default_rng(2)
    blobs = [
        *encode(rng.normal(size=(3, 2, 8)), FeatureDtype.F16),
        None,
        *encode(rng.normal(size=(3, 2, 8)), FeatureDtype.F32, model_id=9),
        *encode(rng.normal(size=(3, 2, 4)), FeatureDtype.F32),  # as long as 8 factors of f16
        *encode(rng.normal(size=(3, 1, 16)), FeatureDtype.F16),  # so is this
        b"",
        b"SF",
    ]
    assert_same_verdict(blobs)
    assert_same_verdict(blobs[::-1])


def test_a_learners_only_vector_stands_for_both():
    vector = np.arange(4.0)
    table = decode_table(encode(vector.reshape(1, 1, 4)))
    np.testing.assert_array_equal(table.vectors[0], [vector, vector])


def test_vectors_beyond_the_second_are_left_to_their_learner():
    table = decode_table(encode(np.arange(12.0).reshape(1, 3, 4)))
    np.testing.assert_array_equal(table.vectors[0], np.arange(8.0).reshape(2, 4))


def test_vectors_cannot_be_changed_by_who_reads_them():
    table = decode_table(encode(np.ones((2, 2, 4))))
    with pytest.raises(ValueError, match="read-only"):
        table.vectors[0][0, 0] = 5.0


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 6, 7])
def test_a_damaged_header_makes_its_own_value_broken_and_no_other(position):
    blobs = encode(np.ones((3, 2, 8)))
    damaged = bytearray(blobs[1])
    damaged[position] ^= 0xFF
    blobs[1] = bytes(damaged)
    assert_same_verdict(blobs)
    assert decode_table(blobs).is_broken.tolist() == [False, True, False]


def test_infinite_and_missing_numbers_make_a_value_broken():
    blobs = encode(np.ones((3, 2, 8)))
    blobs[0] = blobs[0][:-2] + np.float16("inf").tobytes()
    blobs[2] = blobs[2][:64] + np.float16("nan").tobytes() + blobs[2][66:]
    assert_same_verdict(blobs)
    assert decode_table(blobs).is_broken.tolist() == [True, False, True]


def test_random_bytes_get_the_same_verdict_as_from_the_codec():
    rng = np.random.default_rng(3)
    blobs = encode(rng.normal(size=(200, 2, 4)))
    for row, blob in enumerate(blobs):
        damaged = bytearray(blob)
        for _ in range(rng.integers(0, 3)):
            damaged[rng.integers(0, 12)] = int(rng.integers(0, 256))
        blobs[row] = bytes(damaged[: len(damaged) - int(rng.integers(0, 2))])
    assert_same_verdict(blobs)
