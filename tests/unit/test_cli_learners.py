"""`streamer learners`: what there is, and whether one's own may go into service."""

import json

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from worlds import item_model

from streamer.cli.learners import command
from streamer.errors import ConfigError, LearnerError, ModelError
from streamer.factors import BUILT_INS, FoldInParams, learner_id
from streamer.models import write_model


def run(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_shows_every_built_in_and_which_is_the_default():
    output = run("list")
    for name in BUILT_INS:
        assert name in output
    found = json.loads(run("list", "--json"))
    assert [each["name"] for each in found] == list(BUILT_INS)
    assert [each["is_default"] for each in found] == [True, False, False, False]
    assert found[0]["learner_id"] == f"{learner_id('recency_fold_in'):08x}"
    assert found[0]["n_vectors"] == 2


@pytest.mark.parametrize("name", BUILT_INS)
def test_check_says_what_a_built_in_costs(name):
    found = json.loads(run("check", name, "--json"))
    assert (found["name"], found["n_vectors"]) == (name, BUILT_INS[name].n_vectors)
    assert found["us_per_user"] > 0
    assert found["model_id"] is None


def test_check_takes_ones_own_learner_and_ones_own_model(tmp_path):
    model = item_model()
    model_id = write_model(
        tmp_path / "model",
        params=FoldInParams(alpha=2.0, regularization=1.0),
        item_ids=model.item_ids,
        item_factors=model.item_factors,
        popularity=np.ones(model.n_items),
    )
    output = run("check", "own_learners:Sound", "--model", str(tmp_path / "model"))
    assert output.startswith("OK sound: 1 vector and ")
    assert f"with 40 items of model {model_id}, 8 factors" in output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["own_learners:Missing"], ConfigError),
        (["own_learners:Random"], LearnerError),
        (["sgd_replay", "--model", "/no/such/folder"], ModelError),
    ],
)
def test_check_refuses_what_no_worker_would_take(arguments, error):
    result = CliRunner().invoke(command, ["check", *arguments])
    assert isinstance(result.exception, error)


def test_a_shell_completes_the_names_of_the_built_ins():
    complete = ShellComplete(command, {}, "learners", "_COMPLETE")
    found = complete.get_completions(["check"], "f")
    assert [item.value for item in found] == ["flat_fold_in"]
