"""Outcomes of experiments, of real workers: what the log says, once, whatever was killed."""

import json
import subprocess
from random import Random

import oracle
import orjson
import pytest
from click.testing import CliRunner
from integration import experiments_cost
from integration.test_worker_learning import make_model
from integration.worker_process import BASE_MS, STREAMER, deployed, event, sent
from outcome_oracle import Seen, Trial, flat, outcomes
from waiting import eventually

from streamer.experiments import Book
from streamer.models import publish, read_pointer
from streamer.stores import read_sums

START_MS = BASE_MS + 100_000
EXPERIMENTS = """
[layers.taste]
salt = "taste-1"
parameters = ["variant"]

[layers.page]
salt = "page-1"
parameters = ["row_order"]

[variants.second]
model = "second"

[variants.steps]
learner = "sgd_replay"

[[experiments]]
name = "models"
layer = "taste"
start = 2025-11-23T12:15:00Z

[[experiments.cells]]
name = "control"
share = 3000
slots = ["0-2999"]

[[experiments.cells]]
name = "second"
share = 3000
slots = ["3000-5999"]
variant = "second"

[[experiments.cells]]
name = "steps"
share = 3000
slots = ["6000-8999"]
variant = "steps"

[[experiments]]
name = "rows"
layer = "page"
start = 2025-11-23T12:15:00Z

[[experiments.cells]]
name = "a"
share = 5000
slots = ["0-4999"]
row_order = "editorial"

[[experiments.cells]]
name = "b"
share = 5000
slots = ["5000-9999"]
row_order = "taste"
"""
TRIALS = (
    Trial(
        "models",
        "taste-1",
        (("control", 0, 2999), ("second", 3000, 5999), ("steps", 6000, 8999)),
        START_MS,
    ),
    Trial("rows", "page-1", (("a", 0, 4999), ("b", 5000, 9999)), START_MS),
)


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield with_experiments(deployment)


@pytest.fixture
def cluster_deployment(bootstrap_servers, cluster_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, cluster_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield with_experiments(deployment)


def with_experiments(deployment):
    deployment.file = deployment.folder / "experiments.toml"
    deployment.file.write_text(EXPERIMENTS)
    first, _, _ = make_model(deployment, 1)
    second, _, _ = make_model(deployment, 2)
    deployment.model_of = {"default": first, "second": second, "steps": first}
    for variant, folder in deployment.model_of.items():
        publish(deployment.redis, deployment.models, folder, variant)
    return deployment


def start_worker(deployment, **settings):
    return deployment.start_worker(
        models__experiments=str(deployment.file),
        experiments__sample_share=1.0,
        experiments__max_cpu_share=0.5,
        **settings,
    )


def ordered_traffic(seed, n_events, n_users=60, from_s=0):
    """Plays with heartbeats, replays and thumbs; each viewer's in the order of their times."""
    random = Random(seed)
    records = []
    for second in range(from_s, from_s + n_events):
        who, item = random.randrange(n_users), f"title-{random.randrange(60)}"
        kind = random.choice(["play_progress"] * 6 + ["play_stop", "detail_view"])
        kind = random.choice([kind] * 4 + ["thumb_up", "thumb_down", "thumb_clear"])
        watched_s = random.choice([20, 300, 600, 1800, 3000])
        value = event(kind, who, item, BASE_MS + 1000 * second, watched_s=watched_s)
        records.append(sent("browse" if "thumb" in kind else "play", who, value))
    return records


def recomputed(deployment):
    """Return the outcomes that the log, as Kafka has it, gives one event at a time."""
    records = sorted(deployment.produced, key=lambda each: orjson.loads(each.value)["event_time"])
    return outcomes(
        [
            Seen(
                oracle.verdict(each.value, each.time_ms),
                orjson.loads(each.value).get("duration_s", 0.0),
            )
            for each in records
        ],
        TRIALS,
    )


def summed(deployment):
    """Return the sums in Redis of (outcomes, scores)."""
    found = {
        trial.name: flat(read_sums(deployment.redis, Book(trial.name, trial.start_ms)))
        for trial in TRIALS
    }
    counted, scored = ({name: {} for name in found} for _ in range(2))
    for name, sums in found.items():
        for (bucket, field), amount in sums.items():
            (scored if field.count("/") == 2 else counted)[name][bucket, field] = amount
    return counted, scored


def run(deployment, *arguments, exit_code=0):
    done = subprocess.run(
        [STREAMER, "experiments", *arguments],
        env=deployment.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    return done.stdout or done.stderr


def test_sums_are_those_of_the_log_also_after_kills_and_a_second_reading(deployment):
    deployment.produce(ordered_traffic(1, 1500))
    worker = start_worker(deployment)
    eventually(lambda: worker.counts()[1] > 0, 60)
    deployment.produce(ordered_traffic(2, 1500, from_s=1500))
    worker.kill()
    workers = [start_worker(deployment), start_worker(deployment)]
    deployment.produce(ordered_traffic(3, 1500, from_s=3000))
    deployment.wait_until_learned(60)
    expected = recomputed(deployment)
    counted, scored = summed(deployment)
    assert counted == expected
    assert min(len(sums) for sums in expected.values()) > 100
    for variant in deployment.model_of:
        of_variant = [
            n for (_, f), n in scored["models"].items() if f.endswith(f"{variant}/scored")
        ]
        assert sum(of_variant) > 100
    for worker in workers:
        worker.kill()

    # Everything once more, by another group: nothing of it is new.
    again = start_worker(deployment, kafka__group_id=f"{deployment.name}-again")
    deployment.wait_until_counted(again, 60)
    assert summed(deployment) == (expected, scored)
    assert again.total("measuring_failures_total") == 0
    assert again.terminate() == 0


def test_sums_of_a_cluster_are_those_of_the_log(cluster_deployment):
    cluster_deployment.produce(ordered_traffic(4, 1500))
    worker = start_worker(cluster_deployment)
    cluster_deployment.wait_until_learned(60)
    assert summed(cluster_deployment)[0] == recomputed(cluster_deployment)
    found = json.loads(run(cluster_deployment, "report", str(cluster_deployment.file), "--json"))
    assert [each["name"] for each in found] == ["models", "rows"]
    assert worker.terminate() == 0


def test_what_experiments_cost_is_measured_by_a_program(redis_executable):
    arguments = ["--rounds", "1", "--batches", "2", "--size", "200"]
    done = CliRunner().invoke(experiments_cost.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.count("an event") == len(experiments_cost.WAYS)


def test_report_promote_and_roll_back(deployment):
    deployment.produce(ordered_traffic(5, 600))
    worker = start_worker(deployment)
    deployment.wait_until_learned(60)
    file = str(deployment.file)
    expected = recomputed(deployment)["models"]
    (found,) = json.loads(run(deployment, "report", file, "--experiment", "models", "--json"))
    for cell in found["cells"]:
        for name, amount in cell["sums"].items():
            field = f"{cell['name']}/{name}"
            assert amount == sum(n for (_, each), n in expected.items() if each == field)
    assert {each["decision"] for each in found["cells"][1]["outcomes"].values()} == {
        "no decision yet"
    }
    page = run(deployment, "report", file)
    for word in ("models", "control", "2025-11-23 12:15:00", "no decision yet", "plays a user"):
        assert word in page

    before = read_pointer(deployment.redis, "default")
    second = read_pointer(deployment.redis, "second")
    refusal = run(deployment, "promote", file, "models", "steps", "--yes", exit_code=78)
    assert '[models] learner = "sgd_replay"' in refusal
    run(deployment, "rollback", file, "models", "second", "--yes", exit_code=78)
    answer = json.loads(run(deployment, "promote", file, "models", "second", "--yes", "--json"))
    assert (answer["model_id"], answer["promoted"]) == (second.model_id, True)
    promoted = read_pointer(deployment.redis, "default")
    assert promoted.model_id == second.model_id
    assert promoted.generation == before.generation + 1
    eventually(
        lambda: worker.total("model_info", variant="default", model_id=second.model_id) == 1, 10
    )
    run(deployment, "rollback", file, "models", "second", "--yes")
    back = read_pointer(deployment.redis, "default")
    assert (back.model_id, back.generation) == (before.model_id, before.generation + 2)
    assert worker.terminate() == 0
