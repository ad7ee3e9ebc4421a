"""Feature bytes by example, and the golden vectors of the documentation."""

import json
import struct
from pathlib import Path

import numpy as np
import oracle
import pytest

from streamer.factors import (
    FeatureDtype,
    FoldInParams,
    ItemModel,
    RecencyFoldIn,
    Stamp,
    UserFactors,
    decode_features,
    decode_many_features,
    encode_features,
    learner_id,
)
from streamer.history import decode

VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text(encoding="utf-8"))
GOLDEN = VECTORS["features"][0]
VALUE = bytes.fromhex(GOLDEN["hex"])


def with_bytes(start, new):
    return VALUE[:start] + new + VALUE[start + len(new) :]


@pytest.mark.parametrize("vector", VECTORS["features"], ids=lambda vector: vector["dtype"])
def test_golden_features(vector):
    dtype = FeatureDtype[vector["dtype"].upper()]
    stamp = Stamp(
        model_id=int(vector["model_id"], 16),
        generation=vector["generation"],
        learner_id=learner_id(vector["learner"]),
        dtype=dtype,
        written_ms=vector["written_ms"],
    )
    values, is_rejected = encode_features(
        UserFactors(
            np.array([vector["vectors"]], np.float32),
            np.array([vector["n_solved"]]),
            np.zeros(1, bool),
        ),
        np.array([int(vector["history_digest"], 16)], np.uint64),
        np.array([vector["as_of_ms"]]),
        np.array([vector["n_interactions"]]),
        stamp,
    )
    assert [value.hex() for value in values] == [vector["hex"]]
    assert is_rejected.tolist() == [False]

    read = oracle.read_features(bytes.fromhex(vector["hex"]))
    assert oracle.write_features(read).hex() == vector["hex"]
    for source in (read, decode_features(bytes.fromhex(vector["hex"]))):
        assert source.vectors.tolist() == vector["vectors"]
        assert f"{source.model_id:016x}" == vector["model_id"]
        assert f"{source.history_digest:016x}" == vector["history_digest"]
        assert source.learner_id == learner_id("recency_fold_in")
        for name in ("generation", "as_of_ms", "written_ms", "n_interactions", "n_solved"):
            assert getattr(source, name) == vector[name]


@pytest.mark.parametrize("vector", VECTORS["fold_ins"], ids=lambda vector: vector["user_id"])
def test_golden_fold_ins(vector):
    stated = vector["model"]
    ids, factors = list(stated["item_factors"]), np.array(list(stated["item_factors"].values()))
    weights = {name: stated[name] for name in stated if name != "item_factors"}
    model = ItemModel.of(
        1, FoldInParams(**weights), ids, factors.astype(np.float32), np.zeros(3, np.float32)
    )
    judge = oracle.Model(
        dict(zip(map(oracle.item_key, ids), np.float32(factors), strict=True)), **weights
    )
    value = bytes.fromhex(vector["history"])
    made = RecencyFoldIn()(decode([value])[0], model)
    assert made.n_solved.tolist() == [vector["n_solved"]]
    for row, (name, floor) in enumerate((("recent", None), ("lasting", 1.0))):
        exact = oracle.fold_in(oracle.read_history(value), judge, floor)
        limit = 1e-5 * np.linalg.norm(exact.vector)
        assert np.linalg.norm(exact.vector - vector[name]) <= limit
        assert np.linalg.norm(made.vectors[0, row] - vector[name]) <= limit
        assert exact.n_solved == vector["n_solved"]


def test_the_golden_header_is_pinned_here_too():
    """So that the file and the oracle cannot drift together."""
    assert VALUE[:64].hex() == (
        "53460102" "02000300" "efcdab8967452301" "437eb498cc21ef71" "07000000" "cb795c1a"
        "f4e997b69a010000" "eeea97b69a010000" "0300" "0300" "000000000000000000000000"
    )  # fmt: skip
    assert len(VALUE) == 64 + 2 * 3 * 2


@pytest.mark.parametrize(
    "value",
    [
        b"",
        VALUE[:63],
        VALUE[:64],
        VALUE[:-1],
        VALUE + b"\0",
        with_bytes(0, b"SH"),
        with_bytes(2, b"\0"),
        with_bytes(2, b"\2"),
        with_bytes(3, b"\0"),
        with_bytes(3, b"\1"),  # f32 would be longer
        with_bytes(3, b"\3"),
        with_bytes(4, b"\1"),
        with_bytes(6, b"\4"),
        with_bytes(4, b"\0")[:64],  # no vectors
        with_bytes(6, b"\0\0")[:64],  # of no factors
        with_bytes(64, struct.pack("<e", np.nan)),
        with_bytes(64, struct.pack("<e", np.inf)),
    ],
)
def test_a_broken_or_newer_value_reads_as_nothing(value):
    assert decode_features(value) is None
    assert decode_many_features([value, VALUE, None])[0] is None
    assert decode_many_features([value, VALUE, None])[1] is not None


@pytest.mark.parametrize("start", [5, *range(52, 64)])
def test_reserved_bytes_may_be_anything(start):
    assert decode_features(with_bytes(start, b"\xff")).generation == 7


def test_a_batch_of_nobody_has_no_features():
    factors = UserFactors(np.zeros((0, 2, 3), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    nobody = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    values, is_rejected = encode_features(factors, *nobody, Stamp(1, 1, 1, FeatureDtype.F16, 1))
    assert (values, is_rejected.tolist()) == ([], [])


def test_the_largest_model_fits_its_header():
    factors = UserFactors(np.ones((1, 2, 1024), np.float32), np.full(1, 55), np.zeros(1, bool))
    beside = np.full(1, oracle.U64, np.uint64), np.full(1, oracle.LATEST_MS), np.full(1, 55)
    stamp = Stamp(oracle.U64, (1 << 32) - 1, (1 << 32) - 1, FeatureDtype.F32, oracle.LATEST_MS)
    read = oracle.read_features(encode_features(factors, *beside, stamp)[0][0])
    assert (read.n_factors, read.generation, read.learner_id) == (1024, 2**32 - 1, 2**32 - 1)
    assert (read.model_id, read.history_digest) == (oracle.U64, oracle.U64)


def test_a_vector_too_small_for_f16_is_stored_as_f32():
    factors = UserFactors(np.full((1, 2, 2), 1e-9, np.float32), np.ones(1), np.zeros(1, bool))
    beside = np.zeros(1, np.uint64), np.zeros(1, np.int64), np.ones(1, np.int64)
    values, is_rejected = encode_features(factors, *beside, Stamp(1, 1, 1, FeatureDtype.F16, 1))
    assert not is_rejected[0]
    np.testing.assert_array_equal(decode_features(values[0]).vectors, factors.vectors[0])
