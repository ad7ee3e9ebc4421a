"""The tutorial as it stands: its files, commands and Python, on a real Kafka and a real Redis."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import redis
from waiting import eventually

from streamer.experiments import Assignments
from streamer.factors import decode_features, learner_id
from streamer.models.experiment_file import load_catalog
from streamer.reader import FeatureReader, Status
from streamer.stores.keys import features_key

pytest.importorskip("implicit", reason="not run: streamer[train] is not installed")
pytest.importorskip("matplotlib", reason="not run: streamer[replay] is not installed")

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "new_learner.md"
BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^>]+?) -->\n\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL
)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
BASH = shutil.which("bash") or "bash"
MAX_LINES = 20
N_EVENTS = 6_000
N_VIEWERS = 400


def python_lines():
    text = "".join(block["text"] for block in BLOCKS if block["language"] == "python")
    return [line for line in text.splitlines() if line.strip()]


def test_it_takes_fewer_than_twenty_lines_of_python():
    assert 10 < len(python_lines()) < MAX_LINES


@pytest.fixture
def environ(bootstrap_servers, redis_url, unique_name, tmp_path):
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STREAMER__KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "STREAMER__KAFKA__PLAY_TOPIC": f"{unique_name}-play",
        "STREAMER__KAFKA__BROWSE_TOPIC": f"{unique_name}-browse",
        "STREAMER__REDIS__URL": redis_url,
        "STREAMER__METRICS__PORT": "0",
        "STREAMER__MODELS__DIRECTORY": str(tmp_path / "models"),
    }


@pytest.mark.timeout(400)
def test_the_idea_becomes_a_cell_that_is_served(environ, redis_url, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # the service has the module too

    def run(words):
        done = subprocess.run(
            words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    worker = None
    try:
        for block in BLOCKS:
            note, text = block["note"] or "", block["text"]
            if note.startswith("file: "):
                (tmp_path / note.removeprefix("file: ")).write_text(text)
            elif note.startswith("runs until"):
                worker = subprocess.Popen([BASH, "-euc", text], cwd=tmp_path, env=environ)
            else:
                assert block["language"] == "sh", block
                run([BASH, "-euc", text])
        assert worker is not None
        say = "import json; from try_it import report; print(json.dumps(report.to_json()))"
        answer = json.loads(run([sys.executable, "-c", say]))
        assert_that_the_page_says_the_numbers(answer)
        assert (tmp_path / "report.html").read_text().count("<svg") == 5

        run(["streamer", "produce", "--users", str(N_VIEWERS), "--items", "400", "--events",
             str(N_EVENTS), "--rate", "5000", "--quiet"])  # fmt: skip
        assert_that_the_cell_is_served(redis_url, tmp_path)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        if worker is not None and worker.poll() is None:
            worker.kill()
            worker.wait()


def assert_that_the_page_says_the_numbers(answer):
    """Other processors round otherwise, and a tie may fall to the other side."""
    page = PAGE.read_text(encoding="utf-8")
    told = [float(number) for number in re.search(r"is (\.\d+) instead of (\.\d+)", page).groups()]
    found = [answer["learners"][name]["recall@20"] for name in ("sitting", "recency_fold_in")]
    assert found == pytest.approx(told, abs=0.02)
    lift = answer["lifts"]["sitting"]["recency_fold_in"]["recall@20"]
    assert lift["interval"][0] > 0.2
    lifts = answer["lifts"]["recency_fold_in"]
    assert lifts["nightly"]["recall@20"]["lift"] > 0.3
    assert lifts["full_history"]["recall@20"]["lift"] > 0.15


def assert_that_the_cell_is_served(redis_url, folder):
    """One worker keeps both variants fresh, and each viewer is served that of their cell."""
    assignments = Assignments(load_catalog(folder / "experiments.toml"))
    viewers = [f"viewer-{n:06d}" for n in range(N_VIEWERS)]
    variants = [assignments.of(viewer).parameters.variant for viewer in viewers]
    learners = {"default": learner_id("recency_fold_in"), "sitting": learner_id("sitting")}
    with (
        redis.Redis.from_url(redis_url) as client,
        FeatureReader.connect(
            redis_url,
            models=folder / "models",
            experiments=folder / "experiments.toml",
            timeout_seconds=5,
        ) as reader,
    ):

        def is_served_as_stored():  # the worker may still be at work
            reads = zip(reader.get_many(viewers), variants, strict=True)
            served = [pair for pair in reads if pair[0].status is Status.FRESH]
            are_there = {variant for _, variant in served} == set(learners)
            return are_there and all(is_as_stored(*pair) for pair in served)

        def is_as_stored(read, variant):
            features = decode_features(client.get(features_key(variant, read.user_id)))
            assert features.learner_id == learners[variant]
            return np.array_equal(features.vectors.astype(np.float32), read.vectors)

        eventually(is_served_as_stored)
