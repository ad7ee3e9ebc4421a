import gc
import io
import json
import os
import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import ModelError
from streamer.factors import FoldInParams, ItemModel, Signals
from streamer.models import (
    ModelNotes,
    check_model,
    content_id,
    load_model,
    read_manifest,
    write_model,
)
from streamer.models import item_ids as item_ids_module
from streamer.models.folder_writer import ensure_replaceable, replace_model

GOLDEN_ID = "a02f7085cf3b5bd8"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "model.md"


def golden_parts():
    return {
        "params": FoldInParams(alpha=40.0, regularization=0.1),
        "item_ids": ["title-1", "título-2"],
        "item_factors": np.array([[1, 0.5], [-0.25, 2]], np.float32),
        "popularity": np.array([3, 1], np.float32),
    }


@pytest.fixture
def golden(tmp_path):
    write_model(tmp_path / "golden", **golden_parts())
    return tmp_path / "golden"


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal_of(folder):
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}: ")


def save_item_ids(folder, item_ids):
    (folder / "item_ids.json").write_text(json.dumps(item_ids))


def test_a_model_survives_writing_and_loading(tmp_path):
    parts = golden_parts()
    notes = ModelNotes(1_700_000_000_000, "2026-01-01T00:00:00+00:00", {"seed": 7})
    model_id = write_model(tmp_path / "deep" / "golden", **parts, notes=notes)
    model = load_model(tmp_path / "deep" / "golden")
    assert f"{model.model_id:016x}" == model_id
    assert model.params == parts["params"]
    assert list(model.item_ids) == parts["item_ids"]
    assert np.array_equal(model.item_factors, parts["item_factors"])
    assert np.array_equal(model.popularity, parts["popularity"])
    assert read_manifest(tmp_path / "deep" / "golden").notes == notes


def test_the_id_of_the_documented_model_is_the_documented_one(golden):
    assert content_id(load_model(golden)) == GOLDEN_ID
    assert json.loads((golden / "manifest.json").read_text())["model_id"] == GOLDEN_ID
    assert f"`{GOLDEN_ID}`" in REFERENCE.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"params": FoldInParams(alpha=40.0, regularization=0.2)},
        {"params": FoldInParams(40.0, 0.1, signals=Signals(thumb_up=2.0))},
        {"item_ids": ["title-1", "título-3"]},
        {"item_ids": ["title-1t", "ítulo-2"]},
        {"item_factors": np.array([[1, 0.5], [-0.25, 3]], np.float32)},
        {"popularity": np.array([3, 2], np.float32)},
    ],
)
def test_the_id_depends_on_everything_that_a_vector_depends_on(change):
    parts = {**golden_parts(), **change}
    assert content_id(ItemModel.of(0, **parts)) != GOLDEN_ID


def test_the_id_does_not_depend_on_notes(tmp_path):
    notes = ModelNotes(1, "now", {"a": "b"})
    assert write_model(tmp_path / "m", **golden_parts(), notes=notes) == GOLDEN_ID


def test_a_model_written_by_others_with_the_required_fields_alone_loads(golden):
    manifest = json.loads((golden / "manifest.json").read_text())
    required = ("format", "model_id", "n_items", "n_factors", "alpha", "regularization")
    bare = {name: manifest[name] for name in required} | {"model_id": "00000000000000ab"}
    (golden / "manifest.json").write_text(json.dumps(bare))
    np.save(golden / "popularity.npy", np.array([3, 1], np.float64))
    np.save(golden / "item_factors.npy", np.asfortranarray(golden_parts()["item_factors"]))
    (golden / "read_me_first.txt").write_text("ours")
    model = load_model(golden)
    assert model.model_id == 0xAB
    assert model.params == golden_parts()["params"]
    assert model.popularity.dtype == np.float32
    assert content_id(model) == GOLDEN_ID


def test_an_id_that_is_no_digest_is_a_warning_and_not_a_refusal(golden):
    assert check_model(golden).warnings == ()
    edit_manifest(golden, model_id="00000000000000ab")
    (warning,) = check_model(golden).warnings
    assert "is not the digest of the content" in warning


def test_factors_are_mapped_and_read_only(golden):
    factors = load_model(golden).item_factors
    assert isinstance(factors.base, np.memmap)
    assert not factors.flags.writeable


def test_loading_leaves_no_open_file_behind(golden):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(golden)
        del model
        gc.collect()
    open_paths = [path.resolve() for path in Path("/proc/self/fd").iterdir() if path.exists()]
    assert not [path for path in open_paths if path.is_relative_to(golden.resolve())]


@pytest.mark.parametrize(
    "name", ["manifest.json", "item_ids.json", "item_factors.npy", "popularity.npy"]
)
def test_a_missing_file_is_named(golden, name):
    (golden / name).unlink()
    assert refusal_of(golden) == f"missing {name}"


def test_all_missing_files_are_named_at_once(golden):
    for name in ("item_ids.json", "popularity.npy"):
        (golden / name).unlink()
    assert refusal_of(golden) == "missing item_ids.json, popularity.npy"


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert refusal_of(tmp_path / "nowhere") == "no such folder"


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("item_factors.npy", np.ones((3, 2), np.float32), "shape (3, 2), the manifest says (2, 2)"),
        ("item_factors.npy", np.ones(4, np.float32), "shape (4,), the manifest says (2, 2)"),
        ("item_factors.npy", np.ones((2, 2)), "dtype float64, expected float32"),
        ("item_factors.npy", np.ones((2, 2), np.float16), "dtype float16, expected float32"),
        ("item_factors.npy", np.ones((2, 2), ">f4"), "dtype >f4, expected float32"),
        ("item_factors.npy", np.array([[1, 2], [np.nan, 1]], np.float32), "row 1 is not finite"),
        ("item_factors.npy", np.array([[1, np.inf], [0, 1]], np.float32), "row 0 is not finite"),
        ("popularity.npy", np.ones(3, np.float32), "shape (3,), the manifest says (2,)"),
        ("popularity.npy", np.ones(2, np.int64), "dtype int64, expected float32 or float64"),
        ("popularity.npy", np.array([1, np.nan]), "row 1 is nan"),
        ("popularity.npy", np.array([-1.0, 1]), "row 0 is -1.0"),
        ("popularity.npy", np.array([1, 1e300]), "row 1 is inf"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_its_file_and_row(golden, name, array, message):
    np.save(golden / name, array)
    refusal = refusal_of(golden)
    assert refusal.startswith(f"{name}: ")
    assert message in refusal


def bytes_of(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def npy_of(header):
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + b"x" * 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes_of(np.array([[1, "a"], [2, "b"]], object)), "holds pickled objects"),
        (pickle.dumps(np.ones((2, 2), np.float32)), "a pickle, which could run any code"),
        (pickle.dumps([[1.0], [2.0]], protocol=0), "a pickle, which could run any code"),
        (b"PK\x03\x04", "not .npy; refused"),
        (b"", "not .npy; refused"),
        (bytes_of(np.ones((2, 2), np.float32))[:-1], "cut short?"),
        (bytes_of(np.ones((2, 2), np.float32)) + b"x", "bytes, expected"),
        (bytes_of(np.ones((2, 2), np.float32))[:40], "broken .npy header"),
        (bytes_of(np.ones((2, 2), np.float32), version=(3, 0)), "broken .npy header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"(" * 1000, "broken .npy header"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 2L), }"), "broken"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), 'x': 1}"), "broken"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 2)}"), "broken"),
        (npy_of("{'descr': '<f4', 'shape': (2, 2)}"), "broken"),
        (npy_of("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 2)}"), "broken"),
        (npy_of("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}"), "pickled objects"),
        (npy_of("{'descr': '<q7', 'fortran_order': False, 'shape': (2, 2)}"), "dtype <q7"),
    ],
)
def test_a_file_that_is_no_plain_array_is_refused(golden, content, message):
    (golden / "item_factors.npy").write_bytes(content)
    refusal = refusal_of(golden)
    assert refusal.startswith("item_factors.npy: ")
    assert message in refusal


def test_an_array_file_that_another_program_wrote_loads(golden):
    header = b'{"shape":(2,2,),"descr":"<f4", "fortran_order" : False}'
    body = golden_parts()["item_factors"].tobytes()
    content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + body
    (golden / "item_factors.npy").write_bytes(content)
    assert content_id(load_model(golden)) == GOLDEN_ID


def test_an_array_file_in_the_second_format_loads(golden):
    content = bytes_of(golden_parts()["item_factors"], version=(2, 0))
    (golden / "item_factors.npy").write_bytes(content)
    assert content_id(load_model(golden)) == GOLDEN_ID


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["compact", "spaced"])
@pytest.mark.parametrize("last", ["z", 'cut",', "\\", "é"])
def test_long_lists_of_ids_are_parsed_in_slices_to_the_same(monkeypatch, separators, last):
    monkeypatch.setattr(item_ids_module, "SLICE_BYTES", 16)
    monkeypatch.setattr(item_ids_module, "SLICE_IDS", 3)
    ids = [f"title-{number}{last}" for number in range(20)]
    for value in (ids, [*ids, 7], [ids], ids[:1], [], {"a": "b", "c": "d" * 30}):
        content = json.dumps(value, separators=separators).encode()
        assert item_ids_module.parse_item_ids(content) == value
    item_ids_module.ensure_item_ids(ids)
    for broken in (b'["a' + b"x" * 40 + b'","b', b'["aaaaaaaaaaaaaaaaaaaaaaa","b"]x'):
        with pytest.raises(ModelError, match="not JSON"):
            item_ids_module.parse_item_ids(broken)
    for row in (0, 4, 19):
        wrong = [*ids[:row], "", *ids[row + 1 :]]
        with pytest.raises(ModelError, match=f"row {row} "):
            item_ids_module.ensure_item_ids(wrong)


@pytest.mark.parametrize(
    ("item_ids", "message"),
    [
        (["a"], "item_ids.json: 1 ids, the manifest says 2"),
        ({"a": 0, "b": 1}, "item_ids.json: not an array of strings"),
        (["a", 7], "item_ids.json: row 1 is not a string"),
        (["", "b"], "item_ids.json: row 0 is not a string of 1 to 128 bytes"),
        (["a", "x" * 129], "item_ids.json: row 1"),
        (["a", "é" * 65], "item_ids.json: row 1"),
        (["a\n", "b"], "item_ids.json: row 0"),
        (["a", "b\x85"], "item_ids.json: row 1"),
        (["a", "a"], "item_ids.json: rows 0 and 1 have the same id"),
    ],
)
def test_ids_that_no_event_could_carry_are_refused_with_their_row(golden, item_ids, message):
    save_item_ids(golden, item_ids)
    assert refusal_of(golden).startswith(message)


def test_an_id_of_128_bytes_loads(golden):
    save_item_ids(golden, ["x" * 128, "é" * 64])
    assert load_model(golden).n_items == 2


def test_ids_with_colliding_keys_are_refused(golden, monkeypatch):
    monkeypatch.setattr(
        "streamer.factors.model.keys_of", lambda ids: np.full(len(ids), 42, np.uint64)
    )
    assert refusal_of(golden) == "item_ids.json: rows 0 and 1 have colliding keys"


def test_half_a_surrogate_in_an_id_is_refused(golden):
    (golden / "item_ids.json").write_text('["a", "\\ud800"]')
    assert refusal_of(golden).startswith("item_ids.json: not JSON")


@pytest.mark.parametrize("name", ["manifest.json", "item_ids.json"])
def test_json_of_absurd_length_is_refused_unparsed(golden, name, monkeypatch):
    path = golden / name
    path.write_bytes(path.read_bytes() + b" " * (1 << 21))

    def parse(content):
        assert len(content) < 1 << 20
        return json.loads(content)

    monkeypatch.setattr(item_ids_module.orjson, "loads", parse)
    assert refusal_of(golden).startswith(f"{name}: longer than ")


def test_a_gram_matrix_that_is_not_positive_definite_is_refused(golden):
    np.save(golden / "item_factors.npy", np.full((2, 2), 1e18, np.float32))
    edit_manifest(golden, regularization=1e-9)
    refusal = refusal_of(golden)
    assert refusal.startswith("item_factors.npy: VᵀV + λI is not positive definite")


def test_a_matrix_that_float64_can_hardly_invert_is_refused(golden):
    """One title twice: beside the direction of its factors there is nothing but λ."""
    np.save(golden / "item_factors.npy", np.ones((2, 2), np.float32))
    edit_manifest(golden, regularization=4.1e-11)
    assert load_model(golden).n_factors == 2
    edit_manifest(golden, regularization=3.9e-11)
    refusal = refusal_of(golden)
    assert refusal.startswith("item_factors.npy: VᵀV + λI is not positive definite by enough: ")
    assert refusal.endswith("raise the regularization")


def test_a_factor_that_would_overflow_scores_is_refused(golden):
    np.save(golden / "item_factors.npy", np.array([[1, 2], [1, -2e30]], np.float32))
    assert refusal_of(golden) == "item_factors.npy: row 1 has a factor beyond 1e30"


@pytest.mark.parametrize("name", ["item_ids.json", "item_factors.npy"])
def test_a_file_of_holes_is_refused_unread(golden, name):
    """A sparse file of 2 GiB costs its writer nothing, nor may it cost a reader."""
    edit_manifest(golden, n_items=10_000_000, n_factors=1)
    for file, shape in (("item_factors.npy", "(10000000, 1)"), ("popularity.npy", "(10000000,)")):
        header = npy_of(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}")[:-16]
        (golden / file).write_bytes(header)
        os.truncate(golden / file, len(header) + 4 * 10_000_000)
    if name == "item_factors.npy":  # four bytes of length in the second format
        (golden / name).write_bytes(b"\x93NUMPY\2\0\xff\xff\xff\xff")
    os.truncate(golden / name, 2 << 30)
    tracemalloc.start()
    try:
        refusal_of(golden)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_cannot_be_reached_is_named(golden):
    (golden / "popularity.npy").unlink()
    (golden / "popularity.npy").symlink_to("x" * 300)
    assert refusal_of(golden) == "popularity.npy: cannot be read: File name too long"


def test_fewer_items_than_factors_are_fine(tmp_path):
    write_model(
        tmp_path / "m",
        params=FoldInParams(1.0, 1.0),
        item_ids=["a"],
        item_factors=np.ones((1, 8), np.float32),
        popularity=np.ones(1),
    )
    assert load_model(tmp_path / "m").n_factors == 8


def test_a_file_that_may_not_be_read_is_named(golden, monkeypatch):
    def open_nothing(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", open_nothing)
    assert refusal_of(golden) == "manifest.json: cannot be read: Permission denied"


@pytest.mark.parametrize(
    "change",
    [
        {"item_ids": ["title-1", "title-1"]},
        {"item_ids": ["title-1", ""]},
        {"item_factors": np.full((2, 2), np.nan, np.float32)},
        {"item_factors": np.ones((2, 2))},
        {"popularity": np.array([1, 1e300])},
    ],
)
def test_a_bad_model_is_not_written(tmp_path, change):
    with pytest.raises(ModelError):
        write_model(tmp_path / "m", **{**golden_parts(), **change})
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_never_written_over_another(golden):
    before = {path.name: path.read_bytes() for path in golden.iterdir()}
    parts = golden_parts() | {"popularity": np.zeros(2)}
    with pytest.raises(ModelError, match="is there already"):
        write_model(golden, **parts)
    assert {path.name: path.read_bytes() for path in golden.iterdir()} == before
    assert [path.name for path in golden.parent.iterdir()] == ["golden"]


def test_an_empty_folder_takes_a_model(tmp_path):
    (tmp_path / "m").mkdir()
    write_model(tmp_path / "m", **golden_parts())
    assert load_model(tmp_path / "m").n_items == 2


def test_a_full_disk_leaves_no_folder_behind(tmp_path, monkeypatch):
    def save_nothing(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streamer.models.folder_writer.np.save", save_nothing)
    with pytest.raises(ModelError, match=r"m: cannot be written: No space left on device"):
        write_model(tmp_path / "m", **golden_parts())
    assert list(tmp_path.iterdir()) == []


def test_nobody_sees_a_folder_before_it_is_complete(tmp_path, monkeypatch):
    seen = []
    rename = Path.rename

    def spying_rename(self, target):
        seen.append(((tmp_path / "m").exists(), len(list(self.iterdir()))))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spying_rename)
    write_model(tmp_path / "m", **golden_parts())
    assert seen == [(False, 4)]


def test_a_model_takes_the_place_of_another(golden, tmp_path):
    new_id = write_model(tmp_path / "new", **golden_parts() | {"popularity": np.zeros(2)})
    replace_model(tmp_path / "new", golden)
    assert read_manifest(golden).model_id == new_id
    assert [path.name for path in tmp_path.iterdir()] == ["golden"]


def test_a_folder_with_anything_but_a_model_is_never_deleted(golden, tmp_path):
    (golden / "thesis.tex").write_text("years of work")
    write_model(tmp_path / "new", **golden_parts())
    with pytest.raises(ModelError, match=r"has thesis\.tex; not replaced"):
        replace_model(tmp_path / "new", golden)
    assert (golden / "thesis.tex").read_text() == "years of work"
    with pytest.raises(ModelError, match="is not a folder"):
        ensure_replaceable(golden / "thesis.tex")
