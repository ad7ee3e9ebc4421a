"""Workers, readers and every verb on a Redis Cluster."""

import json
import os
import signal
import subprocess

import numpy as np
import oracle
import pytest
from click.testing import CliRunner
from integration import cluster_cost
from integration.worker_process import STREAMER, deployed, event, scan, sent, some_traffic, user
from waiting import eventually

from streamer.factors import FoldInParams
from streamer.models import write_model
from streamer.reader import FeatureReader
from streamer.reader.read import Status

N_TITLES = 60


@pytest.fixture
def deployment(bootstrap_servers, cluster_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, cluster_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def run(deployment, *arguments, exit_code=0):
    done = subprocess.run(
        [STREAMER, *arguments],
        env=deployment.environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    return done.stdout or done.stderr


def publish_a_model(deployment):
    folder = deployment.folder / "model"
    write_model(
        folder,
        params=FoldInParams(alpha=3.0, regularization=0.7),
        item_ids=[f"title-{number}" for number in range(N_TITLES)],
        item_factors=np.random.default_rng(1).normal(size=(N_TITLES, 8)).astype(np.float32),
        popularity=np.ones(N_TITLES, np.float32),
    )
    return run(deployment, "model", "publish", str(folder))


def test_every_verb_works_on_a_cluster(deployment):
    publish_a_model(deployment)
    workers = [deployment.start_worker(), deployment.start_worker()]
    deployment.produce(some_traffic(41, 1500, n_users=300))
    deployment.produce([sent("play", 1, event("play_stop", 1, "title-7", watched_s=3000))])
    deployment.wait_until_learned()
    eventually(lambda: deployment.committed() == deployment.ends())

    verified = json.loads(run(deployment, "verify", "--json"))
    assert verified["different"] == 0
    assert verified["equal"] == len(deployment.expected_histories())
    assert "generation" in run(deployment, "model", "show", "--variant", "default")

    shown = json.loads(run(deployment, "get", user(1), "--json"))
    assert shown["status"] == "fresh"
    assert "title-7" in [entry["item_id"] for entry in shown["history"]]

    vectors = deployment.folder / "vectors.jsonl"
    rows = [{"user_id": user(number), "factors": [1.0] * 8} for number in range(300)]
    vectors.write_text("\n".join(map(json.dumps, rows)))
    imported = json.loads(run(deployment, "users", "import", str(vectors), "--json"))
    assert imported["n_written"] == len(deployment.values("st:u:*")) == 300
    shown = json.loads(run(deployment, "get", user(1), "--json", "--imported"))
    assert shown["is_imported"] is True

    receipt = json.loads(run(deployment, "forget", user(1), "--yes", "--json"))
    assert oracle.imported_key(user(1), "default") in receipt["deleted"]
    forgotten = oracle.State().learn([], receipt["forgotten_before_ms"]).to_bytes()
    history = oracle.history_key(user(1))
    assert deployment.values(f"st:*{user(1)}") == {history: forgotten}
    assert json.loads(run(deployment, "get", user(1), "--json"))["status"] == "cold"
    again = json.loads(run(deployment, "users", "import", str(vectors), "--json"))
    assert (again["n_written"], again["n_forgotten"]) == (299, 1)
    assert len(deployment.values(f"st:*{user(1)}")) == 1

    for worker in workers:
        assert worker.terminate() == 0
    lost = [key for key in deployment.histories() if key != history]
    for key in lost:
        deployment.redis.execute_command("DEL", key)
    assert "will be read again" in run(deployment, "rewind", "--since", "1h")
    deployment.start_worker()
    eventually(lambda: deployment.histories().keys() >= set(lost), 30)


def test_a_reader_reads_from_all_shards_and_says_when_one_is_silent(deployment, redis_cluster):
    publish_a_model(deployment)
    deployment.start_worker()
    deployment.produce(some_traffic(43, 600, n_users=60))
    expected = deployment.wait_until_learned()
    users = [user(number) for number in range(60) if oracle.history_key(user(number)) in expected]
    models = deployment.models
    with FeatureReader.connect(
        deployment.redis_url, models=models, group_id=deployment.name, timeout_seconds=0.3
    ) as reader:
        eventually(lambda: {read.status for read in reader.get_many(users)} == {Status.FRESH})
        assert all(len(top.item_ids) == 5 for top in reader.top_k_many(users, 5))
        os.kill(redis_cluster.primaries[0].pid, signal.SIGSTOP)
        try:
            degraded = reader.get_many(users)
        finally:
            os.kill(redis_cluster.primaries[0].pid, signal.SIGCONT)
        assert {read.status for read in degraded} == {Status.DEGRADED}
        assert {read.error for read in degraded} == {"timeout"}
        eventually(lambda: {read.status for read in reader.get_many(users)} == {Status.FRESH})


def test_the_wrong_kind_of_address_is_refused_at_start(deployment, redis_cluster, redis_url):
    one_node = deployment.start_worker(redis__url=redis_cluster.primaries[1].url)
    no_cluster = deployment.start_worker(redis__url=redis_url.replace("redis:", "redis+cluster:"))
    assert one_node.wait(30) == no_cluster.wait(30) == 78
    assert "write redis+cluster:// for redis://" in one_node.output
    assert "write redis:// for redis+cluster://" in no_cluster.output
    assert scan(deployment.redis_url, "*") == set()


def test_the_cost_of_a_cluster_can_be_measured(redis_executable):
    arguments = ["--rounds", "1", "--batches", "2", "--size", "200", "--rate", "200"]
    done = CliRunner().invoke(cluster_cost.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.count("ratio") == len(cluster_cost.PARTS)
