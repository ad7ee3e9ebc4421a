"""Models from elsewhere: each source round trips, and what is wrong with one is said."""

import json
import sys
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from worlds import event, item_model, records

from streamer.errors import ConfigError, ModelError
from streamer.factors import RecencyFoldIn
from streamer.history import HistoryBatch, merge
from streamer.models import (
    ImportOptions,
    import_arrays,
    import_frame,
    import_implicit,
    import_parquet,
    import_spark,
    load_model,
    read_manifest,
)
from streamer.models.id_files import read_ids, read_popularity
from streamer.models.tables import Column
from streamer.pipeline.records import Decoder

ORIGINAL = item_model()
IDS = list(ORIGINAL.item_ids)
FACTORS = ORIGINAL.item_factors
OPTIONS = ImportOptions(
    alpha=ORIGINAL.params.alpha,
    regularization=ORIGINAL.params.regularization,
    popularity=ORIGINAL.popularity,
)


def save_implicit(path, **changes):
    """As `AlternatingLeastSquares.save` of implicit 0.7.3 does."""
    fields = {
        "user_factors": np.ones((3, FACTORS.shape[1]), np.float32),
        "item_factors": FACTORS,
        "regularization": 1.0,
        "factors": FACTORS.shape[1],
        "num_threads": 1,
        "iterations": 15,
        "use_native": True,
        "use_cg": True,
        "cg_steps": 3,
        "calculate_training_loss": False,
        "dtype": "float32",
        "alpha": 11.0,
        **changes,
    }
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})
    return path


def save_spark(folder, *, n_parts=3, numbers=None, metadata=None):
    """As `ALSModel.save` of Spark 4.3.0 does: parts in no order of the ids, and marker files."""
    (folder / "metadata").mkdir(parents=True)
    (folder / "itemFactors").mkdir()
    said = {
        "class": "org.apache.spark.ml.recommendation.ALSModel",
        "sparkVersion": "4.3.0",
        "paramMap": {"blockSize": 4096, "itemCol": "item", "userCol": "user"},
        "defaultParamMap": {"coldStartStrategy": "nan"},
        "rank": FACTORS.shape[1],
        **(metadata or {}),
    }
    (folder / "metadata" / "part-00000-a.txt").write_text(json.dumps(said) + "\n")
    (folder / "metadata" / "_SUCCESS").touch()
    (folder / "itemFactors" / "_SUCCESS").touch()
    (folder / "itemFactors" / ".part-00000.crc").write_bytes(b"crc")
    numbers = list(range(len(FACTORS))) if numbers is None else numbers
    for part in range(n_parts):
        rows = list(range(part, len(FACTORS), n_parts))
        table = pa.table(
            {
                "id": pa.array([numbers[row] for row in rows], pa.int32()),
                "features": pa.array(FACTORS[rows].tolist(), pa.list_(pa.float32())),
            }
        )
        parquet.write_table(table, folder / "itemFactors" / f"part-{part:05}.snappy.parquet")
    return folder


def save_estimator(folder, **params):
    (folder / "metadata").mkdir(parents=True)
    said = {
        "class": "org.apache.spark.ml.recommendation.ALS",
        "paramMap": {"implicitPrefs": True, "rank": 3, **params},
        "defaultParamMap": {"alpha": 1.0, "regParam": 0.1, "implicitPrefs": False, "rank": 10},
    }
    (folder / "metadata" / "part-00000-b.txt").write_text(json.dumps(said))
    return folder


def frame_of(library):
    columns = {"item_id": IDS, "factors": FACTORS.tolist(), "plays": ORIGINAL.popularity.tolist()}
    if library == "arrow":
        factors = pa.array(columns["factors"], pa.list_(pa.float32()))
        return pa.table({**columns, "factors": factors})
    if library == "numbered":
        numbered = {f"factors_{n}": FACTORS[:, n] for n in reversed(range(FACTORS.shape[1]))}
        return pd.DataFrame({"item_id": IDS, "plays": columns["plays"], **numbered})
    return pd.DataFrame({**columns, "factors": list(FACTORS)})


def sources(folder):
    """Yield every way in, with the original's α and λ."""
    np.save(folder / "v.npy", FACTORS)
    parquet.write_table(frame_of("arrow"), folder / "v.parquet", row_group_size=7)
    spark = save_spark(folder / "spark", metadata={"paramMap": {"regParam": 0.1, "alpha": 5.0}})
    implicit = save_implicit(folder / "v.npz")
    popular = ImportOptions(popularity=ORIGINAL.popularity)
    translated = ImportOptions(popularity=ORIGINAL.popularity, unit_entry=2.0, entries_per_user=10)
    yield "arrays", import_arrays(FACTORS, IDS, OPTIONS)
    yield "npy", import_arrays(folder / "v.npy", IDS, OPTIONS)
    for library in ("arrow", "pandas", "numbered"):
        yield library, import_frame(frame_of(library), OPTIONS)
    yield "parquet", import_parquet(folder / "v.parquet", OPTIONS, popularity="plays")
    yield "implicit", import_implicit(implicit, IDS, popular)
    yield "spark", import_spark(spark, IDS, translated)


def fold_in(model):
    random = np.random.default_rng(5)
    values = [
        event(f"u{n % 9}", IDS[random.integers(len(IDS))], 1_763_900_000_000 - 60_000 * n)
        for n in range(90)
    ]
    arrived = Decoder().decode(records(*values)).arrived
    histories, _ = merge(HistoryBatch.empty(9), arrived)
    return RecencyFoldIn()(histories, model).vectors


def test_a_round_trip_of_every_source_folds_in_as_the_original(tmp_path):
    expected = fold_in(ORIGINAL)
    names = []
    for name, imported in sources(tmp_path):
        model_id = imported.write(tmp_path / "models" / name)
        model = load_model(tmp_path / "models" / name)
        assert f"{model.model_id:016x}" == model_id
        assert list(model.item_ids) == IDS, name
        assert np.array_equal(model.item_factors, FACTORS), name
        assert np.array_equal(model.popularity, ORIGINAL.popularity), name
        assert np.array_equal(fold_in(model), expected), name
        names.append(name)
    assert len(names) == 8


def test_provenance_says_where_a_model_came_from(tmp_path):
    options = ImportOptions(trained_through=1_763_900_000_000)
    import_implicit(save_implicit(tmp_path / "v.npz"), IDS, options).write(tmp_path / "m")
    notes = read_manifest(tmp_path / "m").notes
    assert notes.trained_through == 1_763_900_000_000
    assert notes.created.startswith("20")
    assert notes.provenance["imported_from"] == "implicit"
    assert notes.provenance["recorded"] == {
        "alpha": 11.0,
        "regularization": 1.0,
        "iterations": 15,
        "factors": 8,
    }
    assert notes.provenance["popularity"] == "uniform"


# --- implicit ------------------------------------------------------------------------------------


def test_a_fitted_model_of_implicit_ranks_as_implicit_itself(tmp_path):
    als = pytest.importorskip("implicit.cpu.als", reason="not run: streamer[train] is missing")
    from scipy.sparse import csr_matrix  # noqa: PLC0415  comes with implicit
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  likewise

    random = np.random.default_rng(2)
    plays = csr_matrix((random.random((60, 40)) < 0.2).astype(np.float32))
    with threadpool_limits(1, "blas"):  # else implicit warns
        fitted = als.AlternatingLeastSquares(
            factors=8, regularization=2.0, alpha=15.0, num_threads=1, random_state=1
        )
        fitted.fit(plays, show_progress=False)
    fitted.save(tmp_path / "saved.npz")

    in_memory = import_implicit(fitted, IDS)
    saved = import_implicit(tmp_path / "saved.npz", IDS)
    assert in_memory.params == saved.params
    assert (saved.params.alpha, saved.params.regularization) == (14.0, 2.0)
    assert np.array_equal(in_memory.item_factors, saved.item_factors)

    saved.write(tmp_path / "m")
    model = load_model(tmp_path / "m")
    watched = plays[7].indices
    values = [event("u", IDS[item], 1_763_900_000_000 + n) for n, item in enumerate(watched)]
    arrived = Decoder().decode(records(*values)).arrived
    histories, _ = merge(HistoryBatch.empty(1), arrived)
    lasting = RecencyFoldIn()(histories, model).vectors[0, 1]
    theirs = fitted.recalculate_user(0, plays[7])
    cosine = lasting @ theirs / np.linalg.norm(lasting) / np.linalg.norm(theirs)
    assert cosine > 1 - 1e-6
    assert np.linalg.norm(lasting) == pytest.approx(14 / 15 * np.linalg.norm(theirs), rel=1e-4)


def test_a_confidence_of_implicit_that_is_no_more_than_an_unseen_titles_must_be_explained(tmp_path):
    path = save_implicit(tmp_path / "v.npz", alpha=1.0)
    with pytest.raises(ModelError, match=r"no more than that of an unseen title; .*--unit-entry"):
        import_implicit(path, IDS)
    assert import_implicit(path, IDS, ImportOptions(unit_entry=40)).params.alpha == 39
    assert import_implicit(path, IDS, ImportOptions(alpha=7)).params.alpha == 7


def test_an_old_file_of_implicit_without_alpha_asks_for_it(tmp_path):
    path = save_implicit(tmp_path / "v.npz", alpha=None)
    with pytest.raises(ModelError, match=r"alpha: this version of implicit .* \(--alpha\)"):
        import_implicit(path, IDS)


def test_models_of_other_losses_of_implicit_are_refused(tmp_path):
    path = save_implicit(tmp_path / "bpr.npz", learning_rate=0.01)
    with pytest.raises(ModelError, match="has learning_rate, so it is not AlternatingLeastSquares"):
        import_implicit(path, IDS)


def test_pickles_in_an_archive_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    harmless = save_implicit(tmp_path / "state.npz", random_state=np.array(Bomb(), object))
    assert import_implicit(harmless, IDS).params.alpha == 10  # nobody asked for that member
    for name in ("item_factors", "alpha"):
        path = save_implicit(tmp_path / "bad.npz", **{name: np.array([Bomb()], object)})
        with pytest.raises(ModelError, match="holds pickled objects"):
            import_implicit(path, IDS)


def test_what_is_no_archive_of_implicit_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.npz: not an \.npz file"):
        import_implicit(tmp_path / "text.npz", IDS)
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ModelError, match="no item_factors"):
        import_implicit(tmp_path / "other.npz", IDS)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        import_implicit(tmp_path / "nowhere.npz", IDS)
    with pytest.raises(ModelError, match="object: no item_factors; is it a fitted model"):
        import_implicit(object(), IDS)


def test_an_archive_that_is_cut_short_or_lies_about_its_size_is_refused(tmp_path):
    path = save_implicit(tmp_path / "v.npz")
    with zipfile.ZipFile(path) as whole:
        content = whole.read("item_factors.npy")
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("item_factors.npy", content[:-4])
    with pytest.raises(ModelError, match="cut short"):
        import_implicit(tmp_path / "short.npz", IDS)
    (tmp_path / "half.npz").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"not an \.npz file"):
        import_implicit(tmp_path / "half.npz", IDS)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(FACTORS.tobytes()[:16])] ^= 0xFF
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(ModelError, match=r"not an \.npz file"):
        import_implicit(tmp_path / "damaged.npz", IDS)


# --- spark ---------------------------------------------------------------------------------------


def test_sparks_integers_are_ids_unless_they_have_names(tmp_path):
    numbers = [3 * row for row in range(len(FACTORS))]
    folder = save_spark(tmp_path / "als", numbers=numbers)
    plain = import_spark(folder, None, OPTIONS)
    assert plain.item_ids == [str(number) for number in numbers]
    assert np.array_equal(plain.item_factors, FACTORS)  # sorted, whatever the parts' order
    assert any("ids are integers" in remark for remark in plain.remarks)
    names = {number: f"film {number}" for number in numbers}
    assert import_spark(folder, names, OPTIONS).item_ids[1] == "film 3"
    with pytest.raises(ModelError, match="none for Spark's item 117"):
        import_spark(folder, ["only"] * 117, OPTIONS)


def test_alpha_and_lambda_of_spark_are_the_estimators(tmp_path):
    folder = save_spark(tmp_path / "als")
    with pytest.raises(ModelError, match=r"alpha: Spark records it with the estimator"):
        import_spark(folder, IDS)
    estimator = save_estimator(tmp_path / "est", alpha=40.0)
    imported = import_spark(folder, IDS, estimator=estimator)
    assert (imported.params.alpha, imported.params.regularization) == (40.0, 2.0)  # 0.1 x 20
    assert any("entries a user" in remark for remark in imported.remarks)
    ratings = save_estimator(tmp_path / "ratings", implicitPrefs=False)
    with pytest.raises(ModelError, match="implicitPrefs=False"):
        import_spark(folder, IDS, estimator=ratings)
    with pytest.raises(ModelError, match="no metadata of an ALS estimator"):
        import_spark(folder, IDS, estimator=folder)


def test_item_factors_of_spark_alone_will_do(tmp_path):
    folder = save_spark(tmp_path / "als")
    imported = import_spark(folder / "itemFactors", IDS, OPTIONS)
    assert imported.notes.provenance["recorded"] == {}
    assert np.array_equal(imported.item_factors, FACTORS)


def test_a_folder_of_spark_that_does_not_fit_is_refused(tmp_path):
    folder = save_spark(tmp_path / "rank", metadata={"rank": 9})
    with pytest.raises(ModelError, match="metadata say rank 9, the factors have 8"):
        import_spark(folder, IDS, OPTIONS)
    folder = save_spark(tmp_path / "text")
    (folder / "metadata" / "part-00000-a.txt").write_text("{")
    with pytest.raises(ModelError, match="not one line of JSON"):
        import_spark(folder, IDS, OPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no Parquet files in it"):
        import_spark(tmp_path / "empty", IDS, OPTIONS)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    folder = save_spark(tmp_path / "als")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'streamer\[parquet\]'"):
        import_spark(folder, IDS, OPTIONS)


# --- bad input, whatever the source --------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "ids", "complaint"),
    [
        (FACTORS, IDS[:-1], "40 rows, but there are 39 ids"),
        (FACTORS.T, IDS, "8 rows, but there are 40 ids; is it transposed"),
        (FACTORS[0], IDS, r"float32 of shape \(8,\); expected floats of shape"),
        (FACTORS.astype(int), IDS, "int64 of shape"),
        (FACTORS, [*IDS[:-1], IDS[0]], "ids: rows 0 and 39 have the same id"),
        (FACTORS, [*IDS[:-1], ""], "row 39 is an empty string; expected"),
        (FACTORS, [*IDS[:-1], None], "row 39 is missing; expected"),
        (FACTORS, [*IDS[:-1], 1.0], "row 39 is of type float; expected"),
        (FACTORS, [*IDS[:-1], True], "row 39 is of type bool; expected"),
        (FACTORS, [*IDS[:-1], "x" * 129], "row 39 is a string of 129 characters; expected"),
        (np.where(np.arange(40)[:, None] == 5, np.nan, FACTORS), IDS, "row 5 is not finite"),
        (FACTORS.astype(float) * 1e39, IDS, "row 0 has a number that float32 cannot hold"),
    ],
)
def test_parts_that_do_not_fit_are_refused(factors, ids, complaint):
    with pytest.raises(ModelError, match=complaint):
        import_arrays(factors, ids, OPTIONS)


@pytest.mark.parametrize("name", ["alpha", "regularization"])
def test_a_matrix_needs_alpha_and_lambda_from_the_caller(name):
    said = {"alpha": 10.0, "regularization": 1.0, name: None}
    with pytest.raises(ModelError, match=rf"{name}: a matrix does not say it; say it \(--{name}\)"):
        import_arrays(FACTORS, IDS, ImportOptions(**said))


def test_float64_becomes_float32_and_integers_become_strings_and_both_are_said():
    imported = import_arrays(FACTORS.astype(np.float64), np.arange(40), OPTIONS)
    assert imported.item_factors.dtype == np.float32
    assert imported.item_ids == [str(row) for row in range(40)]
    assert imported.remarks == (
        "ids are integers; they became strings, '0' and so on",
        "factors are float64; they became float32",
    )


def test_a_column_of_parquet_that_holds_no_lists_is_refused(tmp_path):
    parquet.write_table(frame_of("arrow"), tmp_path / "v.parquet")
    with pytest.raises(ModelError, match="column 'plays': of type double, expected lists"):
        import_parquet(tmp_path / "v.parquet", OPTIONS, Column("item_id", "plays"))


def test_no_popularity_is_uniform_with_a_warning():
    imported = import_arrays(FACTORS, IDS, ImportOptions(alpha=10.0, regularization=1.0))
    assert np.array_equal(imported.popularity, np.ones(40))
    assert "all items are equally popular" in imported.remarks[0]


def test_popularity_by_id_is_0_where_there_is_none_and_that_is_said():
    given = {"title-3": 5, "elsewhere": 9}
    options = ImportOptions(alpha=10.0, regularization=1.0, popularity=given)
    imported = import_arrays(FACTORS, IDS, options)
    assert imported.popularity[3] == 5
    assert imported.popularity.sum() == 5
    assert imported.remarks == ("39 of 40 items have no popularity; it is 0",)


def test_popularity_that_does_not_fit_is_refused(tmp_path):
    options = {"alpha": 10.0, "regularization": 1.0}
    with pytest.raises(ModelError, match="there are 40 items"):
        import_arrays(FACTORS, IDS, ImportOptions(**options, popularity=[1, 2]))
    with pytest.raises(ModelError, match="expected numbers"):
        import_arrays(FACTORS, IDS, ImportOptions(**options, popularity=["many"] * 40))
    below = import_arrays(FACTORS, IDS, ImportOptions(**options, popularity=[-1] * 40))
    with pytest.raises(ModelError, match="row 0 is -1"):
        below.write(tmp_path / "m")


@pytest.mark.parametrize("library", ["pandas", "arrow"])
def test_a_frame_says_which_column_is_wrong(library):
    frame = frame_of(library)
    with pytest.raises(ModelError, match="no column 'id'; found: item_id, factors, plays"):
        import_frame(frame, OPTIONS, Column("id", "factors"))
    with pytest.raises(ModelError, match="column 'plays': "):
        import_frame(frame, OPTIONS, Column("item_id", "plays"))
    with pytest.raises(ModelError, match="column 'item_id': expected numbers"):
        import_frame(frame, OPTIONS, popularity="item_id")
    ragged = [*FACTORS[:-1].tolist(), [1.0]]
    frame = (
        pd.DataFrame({"item_id": IDS, "factors": ragged})
        if library == "pandas"
        else pa.table({"item_id": IDS, "factors": ragged})
    )
    with pytest.raises(ModelError, match="row 39 has 1 numbers, row 0 has 8"):
        import_frame(frame, OPTIONS)


# --- files of ids and of popularity --------------------------------------------------------------


def test_ids_come_from_json_text_arrays_and_columns(tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    (tmp_path / "ids.txt").write_text("\r\n".join(IDS) + "\n")
    np.save(tmp_path / "ids.npy", np.array(IDS))
    parquet.write_table(pa.table({"item_id": IDS}), tmp_path / "ids.parquet")
    for name in ("ids.json", "ids.txt", "ids.npy", "ids.parquet"):
        assert read_ids(tmp_path / name) == IDS, name
    np.save(tmp_path / "numbers.npy", np.arange(3))
    assert read_ids(tmp_path / "numbers.npy") == [0, 1, 2]


def test_a_file_of_ids_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.json").write_text("[")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    np.save(tmp_path / "d.npy", np.ones((2, 2)))
    (tmp_path / "e.parquet").write_text("no")
    expected = {
        "a.json": "not an array of ids",
        "b.json": "not JSON",
        "c.txt": "not text in UTF-8",
        "d.npy": "expected one of ids",
        "e.parquet": "not a Parquet file",
        "f.txt": "cannot be read",
    }
    for name, complaint in expected.items():
        with pytest.raises(ModelError, match=complaint):
            read_ids(tmp_path / name)


def test_popularity_comes_from_arrays_and_objects(tmp_path):
    np.save(tmp_path / "p.npy", np.array([1, 2]))
    (tmp_path / "list.json").write_text("[1, 2.5]")
    (tmp_path / "map.json").write_text('{"a": 3}')
    assert read_popularity(tmp_path / "p.npy").tolist() == [1, 2]
    assert read_popularity(tmp_path / "list.json") == [1, 2.5]
    assert read_popularity(tmp_path / "map.json") == {"a": 3}
    for content in ("3", '["a"]', '{"a": null}', "[true]"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ModelError, match="expected an array of numbers"):
            read_popularity(tmp_path / "bad.json")
