"""Imported vectors as bytes, by example and by the golden vectors of the documentation."""

import json
import struct
from pathlib import Path

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.factors import FeatureDtype, ImportStamp, decode_imported, encode_imported
from streamer.factors.features import MAX_STORED_ERROR

VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text(encoding="utf-8"))
VALUE = bytes.fromhex(VECTORS["imported"][0]["hex"])


def with_bytes(start, new):
    return VALUE[:start] + new + VALUE[start + len(new) :]


@pytest.mark.parametrize("vector", VECTORS["imported"], ids=lambda vector: vector["dtype"])
def test_golden_imported_vectors(vector):
    stamp = ImportStamp(
        model_id=int(vector["model_id"], 16),
        trained_through_ms=vector["trained_through_ms"],
        dtype=FeatureDtype[vector["dtype"].upper()],
        written_ms=vector["written_ms"],
    )
    values = encode_imported(np.array([vector["vector"]], np.float32), stamp)
    assert [value.hex() for value in values] == [vector["hex"]]

    read = oracle.read_imported(values[0])
    assert oracle.write_imported(read) == values[0]
    table = decode_imported(values)
    assert table.vectors[0].tolist() == read.vector.tolist() == vector["vector"]
    for name in ("model_id", "trained_through_ms", "written_ms"):
        assert table.headers[name][0] == getattr(read, name) == getattr(stamp, name)


def test_the_golden_header_is_pinned_here_too():
    """So that the file and the oracle cannot drift together."""
    assert VALUE[:16].hex() == "5355010203000000efcdab8967452301"
    assert struct.unpack("<QQ", VALUE[16:32]) == (1763990000000, 1764000000750)
    assert len(VALUE) == 32 + 3 * 2


@pytest.mark.parametrize(
    "value",
    [
        b"",
        VALUE[:31],
        VALUE[:32],
        VALUE[:-1],
        VALUE + b"\0",
        with_bytes(0, b"SF"),
        with_bytes(2, b"\0"),
        with_bytes(2, b"\2"),
        with_bytes(3, b"\0"),
        with_bytes(3, b"\1"),  # f32 would be longer
        with_bytes(3, b"\3"),
        with_bytes(4, b"\4"),
        with_bytes(4, b"\0\0"),
        with_bytes(32, struct.pack("<e", np.nan)),
        with_bytes(32, struct.pack("<e", np.inf)),
    ],
)
def test_a_broken_or_newer_value_reads_as_nothing(value):
    table = decode_imported([value, VALUE, None])
    assert table.is_broken.tolist() == [True, False, False]
    assert table.vectors[0] is None
    assert table.vectors[1] is not None
    assert table.vectors[2] is None
    assert table.headers["model_id"].tolist() == [0, 0x0123456789ABCDEF, 0]


def test_values_of_both_dtypes_and_several_lengths_are_read_at_once():
    values = []
    for n_factors in (1, 3, 6):
        for dtype in FeatureDtype:
            vector = np.full((1, n_factors), n_factors, np.float32)
            values += encode_imported(vector, ImportStamp(n_factors, 0, dtype, 1))
    table = decode_imported(values)
    assert [len(vector) for vector in table.vectors] == [1, 1, 3, 3, 6, 6]
    assert table.headers["model_id"].tolist() == [1, 1, 3, 3, 6, 6]
    with pytest.raises(ValueError, match="read-only"):
        table.vectors[0][0] = 1


def test_what_f16_cannot_hold_is_stored_as_f32():
    vectors = np.array([[1.0, 2.0], [1e-9, 0.0], [1e9, 1.0]], np.float32)
    values = encode_imported(vectors, ImportStamp(1, 0, FeatureDtype.F16, 1))
    assert [value[3] for value in values] == [2, 1, 1]
    table = decode_imported(values)
    np.testing.assert_array_equal(np.stack(table.vectors), vectors)


def test_an_import_of_nobody_has_no_values():
    assert (
        encode_imported(np.zeros((0, 3), np.float32), ImportStamp(1, 0, FeatureDtype.F16, 1)) == []
    )


@given(
    st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=4, max_size=4), max_size=8
    ),
    st.sampled_from(FeatureDtype),
)
def test_a_round_trip_is_within_the_stored_error(rows, dtype):
    vectors = np.array(rows, np.float32).reshape(-1, 4)
    values = encode_imported(vectors, ImportStamp(7, 8, dtype, 9))
    table = decode_imported(values)
    for vector, value, found in zip(vectors, values, table.vectors, strict=True):
        assert oracle.read_imported(value)[2:5] == (7, 8, 9)
        exact = vector.astype(np.float64)
        error = np.linalg.norm(found.astype(np.float64) - exact)
        assert error <= MAX_STORED_ERROR * np.linalg.norm(exact)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=80)), max_size=6))
def test_hostile_bytes_are_safe(blobs):
    table = decode_imported(blobs)
    for blob, vector, is_broken in zip(blobs, table.vectors, table.is_broken, strict=True):
        assert is_broken == (blob is not None and vector is None)
