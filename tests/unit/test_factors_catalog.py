"""From a name to a learner, and what a wrong name is answered."""

import subprocess
import sys

import numpy as np
import pytest
from worlds import item_model

from streamer.errors import ConfigError
from streamer.factors import BUILT_INS, DEFAULT_LEARNER, load_learner, load_learners
from streamer.history import HistoryBatch

HEAD = """
import numpy as np
from streamer.factors import UserFactors

class Zeros:
    name = "zeros"

    def __call__(self, histories, model):
        n = len(histories)
        vectors = np.zeros((n, 1, model.n_factors), np.float32)
        return UserFactors(vectors, np.zeros(n, np.int64), np.zeros(n, bool))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write an importable module and return its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(text=HEAD, name="written_learners"):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", BUILT_INS)
def test_a_built_in_is_loaded_by_its_name_and_does_what_the_catalog_says(name):
    learner = load_learner(name)
    assert learner.name == name
    model = item_model()
    factors = learner(HistoryBatch.empty(2), model)
    assert factors.vectors.shape == (2, BUILT_INS[name].n_vectors, model.n_factors)
    assert BUILT_INS[name].description.endswith(".")


def test_the_default_is_a_built_in():
    assert DEFAULT_LEARNER in BUILT_INS


def test_a_class_of_ones_own_is_imported_and_made(module):
    learner = load_learner(f"{module()}:Zeros")
    assert learner.name == "zeros"
    assert learner(HistoryBatch.empty(3), item_model()).vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("recency_foldin", r"'recency_foldin' is not known, did you mean 'recency_fold_in'\?"),
        ("x", r"'x' is not known; known are recency_fold_in, flat_fold_in, sgd_replay, mean_of_"),
        ("", r"'' is not known.*one's own as package\.module:Class"),
        ("a b:C", r"'a b:C' is not known.*one's own as package\.module:Class"),
        (".relative:C", "is not known"),
        ("no_such_package.learners:Mine", r"no module no_such_package; install its package, or"),
        ("json.no_such_part:Mine", r"no module json\.no_such_part; install"),
        ("json.decoder:JSONDecode", r"has no JSONDecode; did you mean 'JSONDecoder'\?"),
        ("json:dumps", "dumps is of type function; expected a class"),
        ("json:JSONDecoder", "cannot be called; give it __call__"),
    ],
)
def test_a_wrong_name_is_told_what_would_be_right(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_learner(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_thing", "cannot be imported: ModuleNotFoundError: No module named 'no_su"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit('bye')", "cannot be imported: SystemExit: bye"),
        ("def (", "cannot be imported: SyntaxError"),
        (HEAD + "    def __init__(self, rate): pass", "arguments: TypeError: .*'rate'"),
        (HEAD + "    def __init__(self): 1 / 0", "without arguments: ZeroDivisionError: division"),
        (HEAD.replace('name = "zeros"', ""), "attribute `name` is None; expected a string"),
        (HEAD.replace('"zeros"', "7"), "attribute `name` is 7; expected a string of 1 to 128"),
        (HEAD.replace('"zeros"', '""'), "attribute `name` is ''; expected"),
        (HEAD.replace('"zeros"', "'a\\n'"), "expected a string of 1 to 128 printable"),
        (HEAD.replace('"zeros"', '"sgd_replay"'), "'sgd_replay' is a built-in's; give it another"),
        # Made to have the CRC-32 of recency_fold_in.
        (HEAD.replace('"zeros"', '"mine-hICLHQ"'), "tell its name .* from 'recency_fold_in'"),
    ],
)
def test_a_class_that_is_no_learner_is_told_why(module, text, message):
    with pytest.raises(ConfigError, match=f"learner 'written_learners:Zeros'.*{message}"):
        load_learner(f"{module(text)}:Zeros")


def test_several_learners_are_loaded_once_each(module):
    own = f"{module()}:Zeros"
    learners = load_learners([own, "sgd_replay", own])
    assert [learner.name for learner in learners.values()] == ["zeros", "sgd_replay"]
    assert list(learners) == [own, "sgd_replay"]


def test_learners_of_one_name_are_refused_together(module):
    first, second = f"{module()}:Zeros", f"{module(name='others')}:Zeros"
    with pytest.raises(ConfigError, match=r"written_learners:Zeros' and 'others:Zeros' are called"):
        load_learners([first, second])


def test_nothing_is_compiled_or_imported_before_it_is_asked_for():
    program = (
        "import sys, streamer.factors as f\n"
        "f.load_learner('sgd_replay')\n"
        "assert 'numba' not in sys.modules\n"
        "assert 'streamer.factors.mean_of_items' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
