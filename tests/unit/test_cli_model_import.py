import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet
from worlds import item_model

from streamer.cli.main import cli, main
from streamer.errors import ModelError
from streamer.models import load_model, read_manifest

ORIGINAL = item_model()
IDS = list(ORIGINAL.item_ids)
SAID = ("--alpha", "10", "--regularization", "1")


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", ORIGINAL.item_factors)
    np.savez("v.npz", item_factors=ORIGINAL.item_factors, alpha=11.0, regularization=1.0)
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    (tmp_path / "plays.json").write_text(json.dumps(ORIGINAL.popularity.tolist()))
    table = {"title": IDS, "v": ORIGINAL.item_factors.tolist(), "plays": ORIGINAL.popularity}
    parquet.write_table(pa.table(table), "v.parquet")

    def invoke(*args, exit_code=0):
        result = CliRunner().invoke(cli, ["model", "import", *map(str, args)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


def test_each_form_gives_the_same_model(run, tmp_path):
    ids, plays = ("--ids", "ids.json"), ("--popularity", "plays.json")
    run("--from", "npy", "v.npy", *ids, *plays, *SAID, "--out", "a")
    run("--from", "implicit", "v.npz", *ids, *plays, "--out", "b")
    columns = ("--id-column", "title", "--factors-column", "v", "--popularity-column", "plays")
    run("--from", "dataframe-parquet", "v.parquet", *columns, *SAID, "--out", "c")
    found = [read_manifest(tmp_path / name) for name in "abc"]
    assert len({manifest.model_id for manifest in found}) == 1
    assert [manifest.notes.provenance["imported_from"] for manifest in found] == [
        "npy",
        "implicit",
        "dataframe",
    ]
    assert np.array_equal(load_model(tmp_path / "a").item_factors, ORIGINAL.item_factors)


def test_the_answer_says_what_was_assumed(run, tmp_path):
    result = run("--from", "implicit", "v.npz", "--ids", "ids.json", "--out", "m")
    assert result.stdout.startswith("m: model ")
    assert "40 items x 8 factors from implicit; alpha 10, regularization 1;" in result.stdout
    assert "note: alpha 10 = implicit's 11 x 1 - 1" in result.stderr
    assert "note: no popularity was given" in result.stderr
    args = ("--from", "implicit", "v.npz", "--ids", "ids.json", "--out", "n", "--json")
    answer = json.loads(run(*args, "--trained-through", "2025-11-23T12:00:00Z").stdout)
    assert answer["model_id"] == read_manifest(tmp_path / "n").model_id
    assert answer["trained_through"] == 1_763_899_200_000
    assert len(answer["remarks"]) == 2


def test_a_model_that_is_there_is_replaced_by_force_only(run, tmp_path):
    args = ("--from", "npy", "v.npy", "--ids", "ids.json", *SAID, "--out", "m")
    run(*args)
    assert "--force replaces it" in run(*args, exit_code=2).output
    run(*args, "--alpha", "20", "--force")
    assert load_model(tmp_path / "m").params.alpha == 20
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".m")]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError, match="not replaced"):
        run(*args[:-1], "home", "--force")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--from", "npy", "v.npy", *SAID), "needs --ids FILE"),
        (("--from", "implicit", "v.npz"), "needs --ids FILE"),
        (("--from", "dataframe-parquet", "v.parquet", "--ids", "ids.json"), "leave --ids out"),
        (("--from", "npy", "v.npy", "--ids", "ids.json", "--popularity-column", "p"), "of a data"),
        (("--from", "npy", "nowhere.npy"), "does not exist"),
        (("--from", "keras", "v.npy"), "is not one of"),
        (("--from", "npy", "v.npy", "--ids", "ids.json", "--alpha", "0"), "--alpha"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(run, args, complaint):
    assert complaint in run(*args, "--out", "m", exit_code=2).output


def test_a_model_that_must_be_refused_is_one_line_and_exit_code_1(
    run, tmp_path, monkeypatch, capsys
):
    np.save("v.npy", np.full((40, 8), np.nan))
    args = ["model", "import", "--from", "npy", "v.npy", "--ids", "ids.json", "--out", "m", *SAID]
    monkeypatch.setattr(sys, "argv", ["streamer", *args])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "streamer: factors: row 0 is not finite\n")
    assert not (tmp_path / "m").exists()
