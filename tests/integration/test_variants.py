"""Several variants in one worker: one shared history, and features as if each were alone."""

import pytest
from integration.test_worker_learning import features_of, make_model
from integration.worker_process import deployed, some_traffic
from waiting import eventually

from streamer.factors import learner_id
from streamer.models import publish

EXPERIMENTS = """
[layers.taste]
salt = "taste-1"
parameters = ["variant"]

[variants.steps]
learner = "sgd_replay"

[variants.other-model]
model = "second"

[[experiments]]
name = "learners"
layer = "taste"

[[experiments.cells]]
name = "a"
share = 100
slots = ["0-99"]
variant = "steps"
"""


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def test_every_variant_learns_from_every_event_as_if_it_were_alone(deployment):
    """A share is a line of the file: everybody's vectors of every variant are there already."""
    file = deployment.folder / "experiments.toml"
    file.write_text(EXPERIMENTS)
    first, _, _ = make_model(deployment, 1)
    second, _, _ = make_model(deployment, 2)
    models = {"default": first, "steps": first, "other-model": second}
    for variant, folder in models.items():
        publish(deployment.redis, deployment.models, folder, variant)
    worker = deployment.start_worker(models__experiments=str(file))
    deployment.produce(some_traffic(31, 300))
    deployment.wait_until_counted(worker)
    users = len(deployment.expected_histories())
    together = eventually(lambda: whole(features_of(deployment), 3 * users))
    assert deployment.histories() == deployment.expected_histories()
    for variant in models:
        assert worker.total("variant_in_service", variant=variant) == 1
        assert worker.total("folds_total", variant=variant) >= users
    assert worker.terminate() == 0

    # The same log again, each variant in a worker of its own, from the beginning.
    for variant in models:
        deployment.redis.delete(*deployment.values("st:[hf]:*"), "st:mark")
        deployment.learner = "sgd_replay" if variant == "steps" else "recency_fold_in"
        group = f"{deployment.name}-{variant}"
        alone = deployment.start_worker(models__variant=variant, kafka__group_id=group)
        found = eventually(lambda: whole(features_of(deployment), users))
        assert alone.terminate() == 0
        for key, features in found.items():
            assert features.learner_id == learner_id(deployment.learner)
            shared = together[key]
            assert features._replace(written_ms=0, vectors=None) == shared._replace(
                written_ms=0, vectors=None
            )
            assert features.vectors.tobytes() == shared.vectors.tobytes()


def whole(features, n_wanted):
    """Return the features once there are as many as wanted, else nothing."""
    return features if len(features) == n_wanted else None


def test_a_worker_says_what_is_wrong_with_its_file_of_experiments(deployment):
    file = deployment.folder / "experiments.toml"
    file.write_text(EXPERIMENTS.replace("sgd_replay", "sgd_repaly"))
    worker = deployment.start_worker(models__experiments=str(file))
    assert worker.wait(30) == 78
    assert "sgd_repaly" in worker.output
