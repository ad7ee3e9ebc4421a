import json
import sys

import numpy as np
import pytest
from click import Context
from click.testing import CliRunner
from worlds import NOW_MS, event

from streamer.cli.main import cli
from streamer.cli.replay import command
from streamer.errors import ConfigError, LearnerError, ModelError
from streamer.evaluation.trial.contenders import BASELINES
from streamer.factors import FoldInParams
from streamer.models import ModelNotes, write_model

N_ITEMS = 30


def write_tiny(folder, trained_through=NOW_MS + 100):
    rng = np.random.default_rng(1)
    write_model(
        folder,
        params=FoldInParams(alpha=10.0, regularization=1.0),
        item_ids=[f"title-{row}" for row in range(N_ITEMS)],
        item_factors=rng.normal(size=(N_ITEMS, 4)).astype(np.float32),
        popularity=np.arange(N_ITEMS, 0, -1),
        notes=ModelNotes(trained_through=trained_through),
    )


def log_values():
    rng = np.random.default_rng(2)
    for n in range(200):
        yield event(f"u{rng.integers(9)}", f"title-{rng.integers(N_ITEMS)}", NOW_MS + n)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "m")
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([*log_values(), b"{"]))

    def invoke(*args, exit_code=0):
        result = CliRunner().invoke(cli, ["replay", *map(str, args)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


def answer_of(run, *args):
    return json.loads(run("log.jsonl", "--model", "m", "--json", "-", *args).stdout)


def test_the_json_has_the_learner_and_five_baselines_with_three_metrics(run):
    answer = answer_of(run)
    assert list(answer["learners"]) == ["recency_fold_in", *BASELINES]
    assert answer["targets"] > 20
    assert answer["rejected"] == {"not_json": 1}
    for metrics in answer["learners"].values():
        assert 0 <= metrics["mrr@20"] <= metrics["ndcg@20"] <= metrics["recall@20"] <= 1


def test_other_capacities_stand_beside_the_learner_with_their_price(run):
    answer = answer_of(run, "--capacity", "5", "--capacity", "60")
    assert list(answer["learners"])[1:3] == ["capacity_5", "capacity_60"]
    sizes = answer["history_bytes"]
    assert sizes["capacity_5"] < sizes["capacity_30"] <= sizes["capacity_60"]
    shown = run("log.jsonl", "--model", "m", "--capacity", "60").stdout
    assert "bytes of history" in shown
    assert "bytes of history" not in run("log.jsonl", "--model", "m").stdout
    assert "1<=x<=1000" in run("log.jsonl", "--model", "m", "--capacity", "0", exit_code=2).stderr


def test_the_json_goes_into_a_file_and_the_table_to_the_terminal(run, tmp_path):
    result = run(
        "log.jsonl", "--model", "m", "--json", "r.json", "-k", "5", "--learner", "flat_fold_in"
    )
    answer = json.loads((tmp_path / "r.json").read_text())
    recall = answer["learners"]["flat_fold_in"]["recall@5"]
    line = next(line for line in result.stdout.splitlines() if line.startswith(" flat_fold_in  "))
    assert f"{recall:.4f}" in line
    assert all(name in result.stdout for name in BASELINES)


def test_several_learners_stand_beside_each_other(run):
    answer = answer_of(run, "--learner", "recency_fold_in", "--learner", "mean_of_items")
    assert list(answer["learners"])[:2] == ["recency_fold_in", "mean_of_items"]


def test_targets_begin_after_what_the_model_was_trained_on(run):
    assert answer_of(run) == answer_of(run, "--targets-from", "2025-11-23T12:13:20.100Z")
    assert answer_of(run) == answer_of(run, "--targets-from", str(NOW_MS + 100))
    earlier = answer_of(run, "--targets-from", "0.25")
    assert earlier["targets"] > answer_of(run)["targets"]
    assert answer_of(run, "--targets-from", "0")["targets"] > earlier["targets"]


def test_a_replay_that_only_learns_says_how_fast_it_was(run):
    answer = answer_of(run, "--no-metrics")
    assert (answer["events"], answer["viewers"], answer["fold_in_rejected"]) == (200, 9, 0)
    assert answer["events_per_second"] > 0
    assert "200 events of 9 viewers" in run("log.jsonl", "--model", "m", "--no-metrics").stdout


@pytest.mark.parametrize("share", ["1", "1.5", "-0.1", "nan", "inf", "1e12", "946684799999"])
def test_a_share_that_is_none_is_refused(run, share):
    result = run("log.jsonl", "--model", "m", f"--targets-from={share}", exit_code=2)
    assert "no share of the log" in result.stderr


def test_what_is_wrong_is_said_before_the_work(run, tmp_path):
    assert "is not a file" in run("none.jsonl", "--model", "m", exit_code=2).stderr
    assert (
        "there is no folder none"
        in run("log.jsonl", "--model", "m", "--json", "none/r.json", exit_code=2).stderr
    )
    assert (
        "takes one learner"
        in run(
            "log.jsonl",
            "--model",
            "m",
            "--no-metrics",
            "--learner",
            "flat_fold_in",
            "--learner",
            "mean_of_items",
            exit_code=2,
        ).stderr
    )
    with pytest.raises(ModelError, match="no such folder"):
        run("log.jsonl", "--model", "none")
    with pytest.raises(ConfigError, match="did you mean"):
        run("log.jsonl", "--model", "m", "--learner", "flat_foldin")
    write_tiny(tmp_path / "timeless", trained_through=None)
    with pytest.raises(ConfigError, match="no trained_through"):
        run("log.jsonl", "--model", "timeless")


def test_the_page_with_plots_goes_into_a_file(run, tmp_path):
    pytest.importorskip("matplotlib", reason="not run: streamer[replay] is not installed")
    result = run("log.jsonl", "--model", "m", "--html", "r.html")
    assert (tmp_path / "r.html").read_text().count("<svg") >= 4
    assert "recency_fold_in" in result.stdout


def test_without_matplotlib_a_page_is_refused_before_the_work(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"streamer\[replay\]"):
        run("log.jsonl", "--model", "m", "--html", "r.html")
    assert "recency_fold_in" in run("log.jsonl", "--model", "m").stdout


def test_a_log_in_parquet_gives_the_same(run, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="not run: streamer[replay] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    values = [*log_values(), b"{"]
    parquet.write_table(pyarrow.table({"value": values}), tmp_path / "log.parquet")
    by_parquet = json.loads(run("log.parquet", "--model", "m", "--json", "-").stdout)
    assert by_parquet == answer_of(run)
    learned = json.loads(run("log.parquet", "--model", "m", "--json", "-", "--no-metrics").stdout)
    assert learned["events"] == 200


def test_times_are_for_topics(run):
    result = run("log.jsonl", "--model", "m", "--since", "1d", exit_code=2)
    assert "are for kafka:" in result.stderr
    result = run("kafka:", "--model", "m", "--since", "1h", "--until", "2h", exit_code=2)
    assert "--until is not after --since" in result.stderr


def test_a_configuration_says_the_default_learner(run, tmp_path):
    (tmp_path / "c.toml").write_text('[models]\nlearner = "mean_of_items"\n')
    assert "mean_of_items" in answer_of(run, "--config", "c.toml")["learners"]
    by_name = answer_of(run, "--config", "c.toml", "--learner", "flat_fold_in")
    assert "mean_of_items" not in by_name["learners"]


def test_a_learner_that_fails_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "tastes_that_fail.py").write_text(
        "class Fails:\n"
        "    name = 'fails'\n"
        "    def __call__(self, histories, model):\n"
        "        raise ValueError('no idea')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for words in ((), ("--no-metrics",)):
        with pytest.raises(LearnerError, match="learner 'fails' raised ValueError: no idea"):
            run("log.jsonl", "--model", "m", "--learner", "tastes_that_fail:Fails", *words)


def test_built_in_learners_are_completed():
    (option,) = (param for param in command.params if param.name == "learners")
    context = Context(command)
    found = [item.value for item in option.shell_complete(context, "recency")]
    assert found == ["recency_fold_in"]
