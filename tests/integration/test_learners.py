"""Learners in a real worker: built-in ones, somebody's own, and one that fails in production."""

import json
from pathlib import Path

import oracle
import pytest
from integration.test_verify import Verifying
from integration.test_worker_learning import (
    features_of,
    make_model,
    publish_and_wait,
)
from integration.worker_process import BASE_MS, deployed, event, sent, some_traffic, user
from own_learners import BAD_ITEM
from waiting import eventually

from streamer.factors import BUILT_INS, learner_id
from streamer.models import publish


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # of `own_learners`
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


@pytest.mark.parametrize("name", [*BUILT_INS, "own_learners:Sound"])
def test_with_any_learner_redis_is_what_a_recomputation_from_the_log_says(deployment, name):
    deployment.learner = name
    folder, model_id, _ = make_model(deployment, 1)
    worker = deployment.start_worker()
    publish_and_wait(deployment, worker, folder, model_id)
    deployment.produce(some_traffic(11, 400))
    deployment.wait_until_counted(worker)
    eventually(lambda: len(features_of(deployment)) == len(deployment.expected_histories()))
    result = Verifying(deployment).result()
    assert result["equal"] == result["users"] == len(deployment.expected_histories())
    own_name = name if name in BUILT_INS else "sound"
    n_vectors = BUILT_INS[name].n_vectors if name in BUILT_INS else 1
    for features in features_of(deployment).values():
        assert (features.learner_id, features.n_vectors) == (learner_id(own_name), n_vectors)
    assert worker.total("variant_in_service", variant="default") == 1
    assert worker.terminate() == 0


def test_a_learner_that_fails_in_production_takes_its_variant_out_and_never_the_stream(deployment):
    """It raises as soon as anybody has watched one particular title."""
    deployment.learner = "own_learners:ShyOfOneItem"
    folder, model_id, _ = make_model(deployment, 1)
    worker = deployment.start_worker()
    worker.n_tracebacks = 4  # two failures, each with its cause
    publish_and_wait(deployment, worker, folder, model_id)
    deployment.produce(some_traffic(12, 200))
    deployment.wait_until_counted(worker)
    before = deployment.values("st:f:*")
    assert before

    deployment.produce([sent("play", 1, event("play_stop", 1, BAD_ITEM, BASE_MS + 5_000_000))])
    deployment.wait_until_counted(worker)
    eventually(lambda: worker.total("variant_in_service", variant="default") == 0)
    deployment.produce(some_traffic(13, 200))
    deployment.wait_until_counted(worker)
    assert deployment.histories() == deployment.expected_histories()
    assert deployment.values("st:f:*") == before
    [said] = worker.said("learner_failed")
    assert (said["level"], said["variant"], said["learner"]) == (
        "error",
        "default",
        "shy_of_one_item",
    )
    assert said["error"].endswith("raised ZeroDivisionError: somebody watched it")
    assert 'raise ZeroDivisionError("somebody watched it")' in said["exception"]
    assert worker.total("learner_failures_total", variant="default", reason="raised") == 1
    status, body = worker.get("/readyz")
    assert (status, json.loads(body)["variants_out_of_service"]) == (200, ["default"])

    # Another generation is another chance; the viewer is in the cache, so it fails at once.
    second, _, _ = make_model(deployment, 2)
    publish(deployment.redis, deployment.models, second, "default")
    eventually(lambda: len(worker.said("learner_failed")) == 2, 10)
    assert worker.terminate() == 0

    deployment.learner = "own_learners:Sound"  # mended, and started again
    mended = deployment.start_worker()
    deployment.produce([sent("play", 1, event("play_stop", 1, "title-1", BASE_MS + 6_000_000))])
    deployment.wait_until_learned()
    key = oracle.features_key(user(1), "default")
    eventually(lambda: features_of(deployment)[key].learner_id == learner_id("sound"))
    assert features_of(deployment)[key].generation == 2
    assert mended.total("variant_in_service", variant="default") == 1
    assert mended.terminate() == 0


def test_a_learner_that_fails_leaves_the_other_variants_fresh(deployment):
    file = deployment.folder / "experiments.toml"
    file.write_text('[variants.mine]\nlearner = "own_learners:ShyOfOneItem"\n')
    folder, _, _ = make_model(deployment, 1)
    for variant in ("default", "mine"):
        publish(deployment.redis, deployment.models, folder, variant)
    worker = deployment.start_worker(models__experiments=str(file))
    worker.n_tracebacks = 2
    bad = sent("play", 1, event("play_stop", 1, BAD_ITEM, BASE_MS + 5_000_000))
    deployment.produce([*some_traffic(15, 100), bad])
    deployment.wait_until_counted(worker)
    eventually(lambda: worker.total("variant_in_service", variant="mine") == 0)
    deployment.produce(some_traffic(16, 100))
    deployment.wait_until_counted(worker)
    assert worker.total("variant_in_service", variant="default") == 1
    assert json.loads(worker.get("/readyz")[1])["variants_out_of_service"] == ["mine"]
    result = Verifying(deployment).result()  # of `default`
    assert result["equal"] == result["users"] == len(deployment.expected_histories())
    assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat_foldin", "did you mean 'flat_fold_in'?"),
        ("no_such_package:Mine", "there is no module no_such_package"),
    ],
)
def test_a_worker_without_its_learner_does_not_start(deployment, name, message):
    deployment.learner = name
    worker = deployment.start_worker()
    assert worker.wait(30) == 78
    assert message in worker.output
    assert worker.output.count("\n") == 1


def test_a_learner_that_is_not_pure_never_goes_into_service(deployment):
    deployment.learner = "own_learners:Random"
    folder, _, _ = make_model(deployment, 1)
    worker = deployment.start_worker()
    worker.n_tracebacks = 1
    assert worker.port
    publish(deployment.redis, deployment.models, folder, "default")
    [said] = eventually(lambda: worker.said("learner_failed"), 10)
    assert "asked twice, answered differently" in said["error"]
    deployment.produce(some_traffic(14, 100))
    deployment.wait_until_counted(worker)
    assert deployment.histories() == deployment.expected_histories()
    assert deployment.values("st:f:*") == {}
    assert worker.total("learner_failures_total", reason="not_pure") == 1
    assert worker.terminate() == 0
