"""Users' vectors from files: every kind gives the same rows, from any row on."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from streamer.errors import ModelError
from streamer.models import vector_files
from streamer.models.tables import Column
from streamer.models.vector_files import open_vectors, vectors_of_frame

N_USERS, N_FACTORS = 53, 4
USERS = [f"u{number}" for number in range(N_USERS)]
VECTORS = np.random.default_rng(4).standard_normal((N_USERS, N_FACTORS)).astype(np.float32)


@pytest.fixture(params=["npy", "jsonl", "parquet", "folder"])
def opened(request, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "ROWS_AT_ONCE", 10)
    table = pa.table({"user_id": USERS, "factors": VECTORS.tolist()})
    if request.param == "npy":
        np.save(tmp_path / "v.npy", VECTORS.astype(np.float64))
        (tmp_path / "ids.txt").write_text("\n".join(USERS))
        return open_vectors(tmp_path / "v.npy", tmp_path / "ids.txt")
    if request.param == "jsonl":
        rows = zip(USERS, VECTORS.tolist(), strict=True)
        lines = [json.dumps({"user_id": user, "factors": vector}) for user, vector in rows]
        (tmp_path / "v.jsonl").write_text("\n".join(lines))
        return open_vectors(tmp_path / "v.jsonl", None)
    if request.param == "parquet":
        parquet.write_table(table, tmp_path / "v.parquet", row_group_size=23)
        return open_vectors(tmp_path / "v.parquet", None)
    (tmp_path / "v").mkdir()
    parquet.write_table(table.slice(0, 17), tmp_path / "v" / "part-0.parquet")
    parquet.write_table(table.slice(17), tmp_path / "v" / "part-1.parquet")
    return open_vectors(tmp_path / "v", None)


@pytest.mark.parametrize("first_row", [0, 1, 10, 17, 23, 52, 53, 60])
def test_every_kind_of_file_gives_its_rows_from_any_row_on(opened, first_row):
    chunks = list(opened.chunks(first_row))
    assert opened.n_rows in (N_USERS, None)
    assert [user for chunk in chunks for user in chunk.user_ids] == USERS[first_row:]
    expected_row = first_row
    for chunk in chunks:
        assert chunk.first_row == expected_row
        assert 0 < len(chunk.user_ids) <= 10
        assert chunk.vectors.dtype == np.float32
        end = expected_row + len(chunk.user_ids)
        np.testing.assert_array_equal(chunk.vectors, VECTORS[expected_row:end])
        expected_row = end


def test_a_data_frame_is_one_chunk():
    frame = pd.DataFrame({"user_id": USERS, "factors": list(VECTORS)})
    chunk = vectors_of_frame(frame)
    assert (chunk.first_row, chunk.user_ids) == (0, USERS)
    np.testing.assert_array_equal(chunk.vectors, VECTORS)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 3 is not an object with 'user_id' and 'factors'"),
        ("[]", "line 3 is not an object"),
        ('{"user_id": "x"}', "line 3 is not an object with 'user_id' and 'factors'"),
        ('{"user_id": "x", "factors": []}', "line 3: 'factors' is not an array of 1 numbers"),
        ('{"user_id": "x", "factors": [1, 2]}', "line 3: 'factors' is not an array of 1 numbers"),
        ('{"user_id": "x", "factors": [null]}', "line 3: 'factors' is not an array"),
        ('{"user_id": "x", "factors": [true]}', "line 3: 'factors' is not an array"),
        ('{"user_id": "x", "factors": [1e39]}', "row 2 has a number that float32 cannot hold"),
        ('{"user_id": "", "factors": [1]}', "row 2 is an empty string"),
        ('{"user_id": null, "factors": [1]}', "row 2 is missing"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, complaint):
    good = '{"user_id": "u", "factors": [1]}\n'
    (tmp_path / "v.jsonl").write_text(2 * good + line + "\n" + good)
    with pytest.raises(ModelError, match=complaint):
        list(open_vectors(tmp_path / "v.jsonl", None).chunks(0))
    with pytest.raises(ModelError, match=complaint):
        list(open_vectors(tmp_path / "v.jsonl", None).chunks(1))  # the same number from there


def test_rows_of_npy_and_parquet_are_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "ROWS_AT_ONCE", 10)
    bad = VECTORS.copy()
    bad[31, 2] = np.inf
    np.save(tmp_path / "v.npy", bad)
    (tmp_path / "ids.json").write_text(json.dumps(USERS))
    with pytest.raises(ModelError, match="row 31 is not finite"):
        list(open_vectors(tmp_path / "v.npy", tmp_path / "ids.json").chunks(0))
    table = pa.table({"user_id": [*USERS[:40], None, *USERS[41:]], "factors": VECTORS.tolist()})
    parquet.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(ModelError, match="row 40 is missing"):
        list(open_vectors(tmp_path / "v.parquet", None).chunks(0))


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "ids.json").write_text(json.dumps(USERS[:-1]))
    (tmp_path / "twice.json").write_text(json.dumps([*USERS[:-1], USERS[0]]))
    (tmp_path / "v.parquet").write_text("no")
    parquet.write_table(pa.table({"id": USERS}), tmp_path / "w.parquet")
    expected = [
        (("v.npy", None), "has rows but no ids"),
        (("v.npy", "ids.json"), "53 rows, but there are 52 ids"),
        (("v.npy", "twice.json"), "rows 0 and 52 have the same id"),
        (("v.parquet", None), "not a Parquet file"),
        (("w.parquet", None), "no column 'user_id'; found: id"),
        (("w.parquet", "ids.json"), "has ids of its own"),
    ]
    for (path, ids), complaint in expected:
        with pytest.raises(ModelError, match=complaint):
            open_vectors(tmp_path / path, ids and tmp_path / ids)
    file = open_vectors(tmp_path / "w.parquet", None, Column("id", "v"))
    with pytest.raises(ModelError, match="no column 'v'"):
        list(file.chunks(0))
