"""`streamer users import` into a real Redis: as a program, stopped and resumed, and read back."""

import json
import os
import signal
import subprocess

import numpy as np
import oracle
import pyarrow as pa
import pytest
import redis
from click.testing import CliRunner
from integration.worker_process import STREAMER
from pyarrow import parquet
from waiting import eventually
from worlds import NOW_MS, item_model

from streamer.cli.main import cli
from streamer.errors import ModelError, StoreUnavailable, StreamerError
from streamer.models import publish, write_model

MODEL = item_model()
N_USERS = 4_000
USERS = [f"user-{number:05}" for number in range(N_USERS)]
VECTORS = np.random.default_rng(8).standard_normal((N_USERS, MODEL.n_factors)).astype(np.float32)


class Deployment:
    def __init__(self, redis_url, folder):
        self.folder = folder
        self.redis = redis.Redis.from_url(redis_url)
        self.environment = {
            "STREAMER__REDIS__URL": redis_url,
            "STREAMER__MODELS__DIRECTORY": str(folder / "models"),
        }
        self.model_id = write_model(
            folder / "model",
            params=MODEL.params,
            item_ids=MODEL.item_ids,
            item_factors=MODEL.item_factors,
            popularity=MODEL.popularity,
        )
        np.save(folder / "v.npy", VECTORS)
        (folder / "ids.txt").write_text("\n".join(USERS) + "\n")

    def publish(self, variant="default"):
        publish(self.redis, self.folder / "models", self.folder / "model", variant)

    def run(self, *args, exit_code=0):
        result = CliRunner().invoke(cli, ["users", "import", *map(str, args)], env=self.environment)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    def import_npy(self, *args, exit_code=0):
        rows = (self.folder / "v.npy", "--ids", self.folder / "ids.txt", "--json")
        return json.loads(self.run(*rows, *args, exit_code=exit_code).stdout)

    def imported(self, user, variant="default"):
        value = self.redis.get(oracle.imported_key(user, variant))
        return None if value is None else oracle.read_imported(value)

    def n_imported(self):
        return len(self.redis.keys("st:u:*"))


@pytest.fixture
def deployment(redis_url, tmp_path):
    deployment = Deployment(redis_url, tmp_path)
    yield deployment
    deployment.redis.close()


def test_every_vector_is_written_for_the_live_model(deployment):
    deployment.publish()
    answer = deployment.import_npy("--trained-through", "2025-11-23T12:00:00Z")
    assert answer["n_written"] == deployment.n_imported() == N_USERS
    assert (answer["n_forgotten"], answer["n_zero"]) == (0, 0)
    assert answer["model_id"] == deployment.model_id
    for row in (0, 17, N_USERS - 1):
        read = deployment.imported(USERS[row])
        assert read.model_id == int(deployment.model_id, 16)
        assert read.trained_through_ms == 1_763_899_200_000
        assert read.dtype == 2
        assert np.abs(read.vector - VECTORS[row]).max() < 1e-3 * np.linalg.norm(VECTORS[row])


def test_parquet_and_json_lines_write_the_same_bytes(deployment):
    deployment.publish()
    table = pa.table({"id": USERS[:300], "features": VECTORS[:300].tolist()})
    parquet.write_table(table, deployment.folder / "v.parquet")
    rows = zip(USERS[:300], VECTORS[:300].tolist(), strict=True)
    lines = [json.dumps({"user_id": user, "factors": vector}) for user, vector in rows]
    (deployment.folder / "v.jsonl").write_text("\n".join(lines))
    columns = ("--id-column", "id", "--factors-column", "features")
    found = []
    for path, *args in (("v.parquet", *columns), ("v.jsonl",)):
        deployment.redis.delete(*deployment.redis.keys("st:u:*") or ["none"])
        text = deployment.run(deployment.folder / path, *args, "--dtype", "f32").stdout
        assert text.startswith("default: 300 vectors written for model ")
        assert deployment.n_imported() == 300
        found.append([deployment.imported(user).vector.tolist() for user in USERS[:300]])
    assert found[0] == found[1] == VECTORS[:300].tolist()


def test_a_dry_run_checks_and_writes_nothing(deployment):
    deployment.publish()
    before = deployment.redis.keys("*")
    answer = deployment.import_npy("--dry-run", "--variant", "default")
    assert answer["dry_run"] is True
    assert answer["n_written"] == N_USERS
    assert deployment.redis.keys("*") == before
    each = answer["n_bytes"] / N_USERS
    used = deployment.redis.info("memory")["used_memory"]
    deployment.import_npy()
    used = deployment.redis.info("memory")["used_memory"] - used
    assert used / N_USERS == pytest.approx(each, rel=0.25)  # the table doubles at some point


def test_forgotten_viewers_and_vectors_of_zeros_are_left_out(deployment):
    deployment.publish()
    state = oracle.State().learn([], NOW_MS)
    deployment.redis.set(oracle.history_key(USERS[3]), state.to_bytes())
    vectors = VECTORS.copy()
    vectors[5] = 0
    np.save(deployment.folder / "v.npy", vectors)
    answer = deployment.import_npy()
    assert (answer["n_written"], answer["n_forgotten"], answer["n_zero"]) == (N_USERS - 2, 1, 1)
    assert deployment.imported(USERS[3]) is None
    assert deployment.imported(USERS[5]) is None
    text = deployment.run(deployment.folder / "v.npy", "--ids", deployment.folder / "ids.txt")
    assert "left out 1 viewers who were forgotten since" in text.stdout
    assert "left out 1 vectors of zeros" in text.stdout


def test_an_import_that_was_stopped_goes_on_where_it_was(deployment):
    deployment.publish()
    state = deployment.folder / "state"
    args = ("--ids", deployment.folder / "ids.txt", "--resume", state, "--json")
    command = [STREAMER, "users", "import", deployment.folder / "v.npy", *args, "--rate", "1000"]
    process = subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, **deployment.environment},
        stdout=subprocess.PIPE,
    )
    try:
        eventually(lambda: deployment.n_imported() >= 1_000)
        process.send_signal(signal.SIGINT)
        first = json.loads(process.communicate(timeout=20)[0])
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75
    assert 1_000 <= first["n_written"] == first["next_row"] == deployment.n_imported() < N_USERS
    assert json.loads(state.read_text())["next_row"] == first["next_row"]

    second = deployment.import_npy("--resume", state)
    assert second["n_written"] == N_USERS - first["next_row"]
    assert deployment.n_imported() == N_USERS
    assert not state.exists()


def test_progress_of_another_import_is_refused(deployment):
    deployment.publish()
    deployment.publish("other")
    state = deployment.folder / "state"
    state.write_text("{")
    with pytest.raises(StreamerError, match="cannot be read as progress"):
        deployment.import_npy("--resume", state)
    state.write_text('{"next_row": -1}')
    with pytest.raises(StreamerError, match="is no progress of an import"):
        deployment.import_npy("--resume", state)
    state.write_text('{"next_row": 5, "source": {}}')
    with pytest.raises(StreamerError, match="progress of another import"):
        deployment.import_npy("--resume", state, "--variant", "other")
    assert deployment.n_imported() == 0


def test_a_bad_row_ends_the_import_and_its_progress_stays(deployment):
    deployment.publish()
    vectors = VECTORS.copy()
    vectors[7] = np.nan
    np.save(deployment.folder / "v.npy", vectors)
    with pytest.raises(ModelError, match="row 7 is not finite"):
        deployment.import_npy()


def test_vectors_of_another_dimension_are_refused(deployment):
    deployment.publish()
    np.save(deployment.folder / "v.npy", VECTORS[:, :5])
    with pytest.raises(ModelError, match=r"vectors of 5 numbers, but model .* has 8 factors"):
        deployment.import_npy()
    assert deployment.n_imported() == 0


def test_a_variant_without_a_model_needs_one_to_be_said(deployment):
    with pytest.raises(ModelError, match=r"no live model; publish one, or .*--model DIR"):
        deployment.import_npy()
    answer = deployment.import_npy("--model", deployment.folder / "model", "--variant", "new")
    assert answer["n_written"] == N_USERS
    assert deployment.imported(USERS[0], "new").model_id == int(deployment.model_id, 16)
    assert deployment.redis.smembers("st:variants") == {b"new"}
    with pytest.raises(ModelError, match="variant 'No!'"):
        deployment.import_npy("--variant", "No!")


def test_a_redis_that_is_away_is_said(deployment):
    deployment.environment["STREAMER__REDIS__URL"] = "redis://127.0.0.1:1/0"
    with pytest.raises(StoreUnavailable):
        deployment.import_npy("--model", deployment.folder / "model")
