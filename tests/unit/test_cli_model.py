import json
import sys

import numpy as np
import pytest
import redis
from click.testing import CliRunner

from streamer.cli.main import cli, main
from streamer.errors import ModelError
from streamer.factors import FoldInParams
from streamer.models import load_model, read_manifest, write_model
from streamer.pipeline.records import Partition, Record
from streamer.pipeline.sweep import advanced, begun, encode_sweep

T0 = 1_700_000_000_000


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def invoke(*args, exit_code=0):
        result = CliRunner().invoke(cli, ["model", *map(str, args)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


def write_tiny(folder, seed=1):
    rng = np.random.default_rng(seed)
    return write_model(
        folder,
        params=FoldInParams(alpha=10.0, regularization=1.0),
        item_ids=["a", "b", "c"],
        item_factors=rng.normal(size=(3, 2)).astype(np.float32),
        popularity=np.array([1, 5, 3]),
    )


def break_model(folder):
    np.save(folder / "item_factors.npy", np.full((3, 2), np.nan, np.float32))


def log_lines():
    """Two kinds of viewers, each with twelve titles of their own."""
    rng = np.random.default_rng(5)
    for n in range(900):
        user = int(rng.integers(30))
        yield json.dumps(
            {
                "type": "play_stop",
                "user_id": f"u{user}",
                "item_id": f"i{user % 2}-{rng.integers(12)}",
                "event_time": T0 + n * 1000,
                "watched_s": 1000,
                "duration_s": 1000,
            }
        )


@pytest.fixture
def log_file(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([*log_lines(), "{", "[]", "{"]))
    return path


def test_a_sound_model_is_ok(run, tmp_path):
    model_id = write_tiny(tmp_path / "m")
    assert run("check", "m").output == f"OK m: 3 items x 2 factors, model {model_id}\n"
    assert json.loads(run("check", "m", "--json").output) == {
        "model_id": model_id,
        "n_items": 3,
        "n_factors": 2,
        "warnings": [],
    }


def test_an_id_that_is_no_digest_is_ok_with_a_warning(run, tmp_path):
    write_tiny(tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    (tmp_path / "m" / "manifest.json").write_text(json.dumps(manifest | {"model_id": "0" * 16}))
    first, second = run("check", "m").output.splitlines()
    assert first.startswith("OK m: ")
    assert second.startswith(f"warning: model_id {'0' * 16} is not the digest of the content")


def test_a_bad_model_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "m")
    break_model(tmp_path / "m")
    monkeypatch.setattr(sys, "argv", ["streamer", "model", "check", "m"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "streamer: m: item_factors.npy: row 0 is not finite\n")


def test_show_says_what_is_in_a_folder(run, tmp_path):
    model_id = write_tiny(tmp_path / "m")
    shown = json.loads(run("show", "m", "--json").output)
    assert shown["model_id"] == model_id
    assert shown["alpha"] == 10.0
    assert shown["signals"]["thumb_up"] == 1.5
    assert shown["most_popular"] == [["b", 5.0], ["c", 3.0], ["a", 1.0]]
    factors = load_model(tmp_path / "m").item_factors.astype(np.float64)
    norms = np.linalg.norm(factors, axis=1)
    assert [shown["least_norm"], shown["median_norm"], shown["greatest_norm"]] == pytest.approx(
        sorted(norms)
    )
    assert shown["condition_number"] == pytest.approx(
        np.linalg.cond(factors.T @ factors + np.eye(2))
    )
    lines = run("show", "m").output.splitlines()
    assert len(lines) == len(shown)
    assert any(line.split() == ["model_id", model_id] for line in lines)


def test_show_wants_a_folder_or_a_variant(run):
    assert "one of them" in run("show", exit_code=2).output
    assert "one of them" in run("show", "m", "--variant", "default", exit_code=2).output


def test_a_model_is_published_shown_and_rolled_back(run, tmp_path, redis_url, monkeypatch):
    monkeypatch.setenv("STREAMER__REDIS__URL", redis_url)
    first, second = write_tiny(tmp_path / "1", 1), write_tiny(tmp_path / "2", 2)
    assert "no live model yet" in run("show", "--variant", "default", exit_code=1).output
    assert run("publish", "1").output == f"default: model {first} is live now as generation 1\n"
    assert "was live already, still generation 1" in run("publish", "1").output
    assert json.loads(run("publish", "2", "--json").output) == {
        "variant": "default",
        "published": True,
        "model_id": second,
        "generation": 2,
        "previous": first,
    }
    shown = json.loads(run("show", "--variant", "default", "--json").output)
    assert (shown["model_id"], shown["generation"], shown["previous"]) == (second, 2, first)
    assert shown["folder"] == f"models/{second}"
    assert shown["sweep"] == {
        "is_done": False,
        "progress": 0.0,
        "n_passes": 0,
        "n_found_behind": 0,
        "n_left_behind": None,
    }
    assert run("rollback").output == (
        f"default: model {first} is live again, as generation 3; {second} was rolled back\n"
    )
    assert json.loads(run("rollback", "--variant", "default", "--json").output) == {
        "variant": "default",
        "model_id": second,
        "generation": 4,
        "previous": first,
    }
    assert "generation 5" in run("publish", f"models/{first}").output


def test_show_says_how_far_everybody_has_the_live_model(run, tmp_path, redis_url, monkeypatch):
    monkeypatch.setenv("STREAMER__REDIS__URL", redis_url)
    write_tiny(tmp_path / "1", 1)
    run("publish", "1")

    def shown_after(sweep):
        with redis.Redis.from_url(redis_url) as client:
            server = client.info("server")["run_id"]
            client.hset("st:sweep:default", server, encode_sweep(sweep))
        return json.loads(run("show", "--variant", "default", "--json").output)["sweep"]

    half = advanced(begun(1, 40, T0), "96", 20, 7, T0)
    assert shown_after(half) == {
        "is_done": False,
        "progress": 0.5,
        "n_passes": 1,
        "n_found_behind": 7,
        "n_left_behind": None,
    }
    done = advanced(advanced(half, "0", 20, 0, T0), "0", 40, 0, T0)
    assert shown_after(done) == {
        "is_done": True,
        "progress": 1.0,
        "n_passes": 2,
        "n_found_behind": 7,
        "n_left_behind": 0,
    }
    assert shown_after(begun(2, 40, T0))["n_passes"] == 0  # of another generation


def test_where_there_is_nothing_to_roll_back_to_it_says_so(run, redis_url, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMER__REDIS__URL", redis_url)
    with pytest.raises(ModelError, match="variant wide has no live model yet"):
        run("rollback", "--variant", "wide")
    write_tiny(tmp_path / "1", 1)
    run("publish", "1")
    with pytest.raises(ModelError, match="nothing to roll back to"):
        run("rollback")


def test_a_bad_model_is_not_published(run, tmp_path, redis_url, monkeypatch):
    monkeypatch.setenv("STREAMER__REDIS__URL", redis_url)
    model_id = write_tiny(tmp_path / "1", 1)
    run("publish", "1", "--variant", "wide")
    write_tiny(tmp_path / "2", 2)
    break_model(tmp_path / "2")
    with pytest.raises(ModelError):
        run("publish", "2", "--variant", "wide")
    shown = json.loads(run("show", "--variant", "wide", "--json").output)
    assert (shown["model_id"], shown["generation"]) == (model_id, 1)


TRAIN = ("--factors", "4", "--iterations", "3")


def test_training_says_what_it_made_of_what(run, log_file):
    pytest.importorskip("implicit")
    result = run("train", log_file, "m", *TRAIN)
    manifest = read_manifest(log_file.parent / "m")
    assert result.stdout.startswith(f"m: model {manifest.model_id}, 24 items x 4 factors from 900")
    assert result.stdout.count("\n") == 1
    assert result.stderr == "skipped 3 bad records: 2 not_json, 1 not_an_object\n"
    assert manifest.notes.trained_through == T0 + 899_000
    assert manifest.notes.provenance["n_rejected"] == 3


def test_a_script_gets_one_json_object_of_training(run, log_file):
    pytest.importorskip("implicit")
    result = run("train", log_file, "m", *TRAIN, "--json", "--quiet")
    answer = json.loads(result.stdout)
    assert answer["model_id"] == read_manifest(log_file.parent / "m").model_id
    assert answer["rejected"] == {"not_json": 2, "not_an_object": 1}
    assert (answer["n_items"], answer["n_users"], answer["n_events"]) == (24, 30, 900)
    assert 0 <= answer["recall_at_20"] <= 1
    assert result.stderr == ""


def test_a_log_in_kafka_gives_the_same_model_as_in_a_file(run, log_file, monkeypatch):
    pytest.importorskip("implicit")
    asked = {}

    def read_log(client, bootstrap_servers, topics):
        asked.update(client=client, bootstrap_servers=bootstrap_servers, topics=topics)
        for offset, line in enumerate(log_lines()):
            yield Record(Partition("play-events", 0), offset, T0 + offset * 1000, None, line)

    monkeypatch.setattr("streamer.cli.model_train.read_log", read_log)
    monkeypatch.setenv("STREAMER__KAFKA__BOOTSTRAP_SERVERS", "broker:9092")
    monkeypatch.setenv("STREAMER__KAFKA__CLIENT__FETCH_WAIT_MAX_MS", "5")
    run("train", "kafka:", "of-kafka", *TRAIN)
    run("train", log_file, "of-file", *TRAIN)
    ids = [read_manifest(log_file.parent / name).model_id for name in ("of-kafka", "of-file")]
    assert ids[0] == ids[1]
    assert asked == {
        "client": {"fetch.wait.max.ms": "5"},
        "bootstrap_servers": "broker:9092",
        "topics": ("play-events", "browse-events"),
    }


def test_a_folder_that_is_there_is_replaced_only_by_force(run, log_file):
    pytest.importorskip("implicit")
    write_tiny(log_file.parent / "m")
    assert "--force replaces it" in run("train", log_file, "m", *TRAIN, exit_code=2).output
    assert load_model(log_file.parent / "m").n_items == 3
    run("train", log_file, "m", *TRAIN, "--force")
    assert load_model(log_file.parent / "m").n_items == 24
    assert sorted(path.name for path in log_file.parent.iterdir()) == ["log.jsonl", "m"]


def test_force_does_not_replace_what_is_no_model(run, log_file):
    (log_file.parent / "m").mkdir()
    (log_file.parent / "m" / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError, match="not replaced"):
        run("train", log_file, "m", *TRAIN, "--force")


def test_a_log_that_is_not_there_is_a_wrong_call(run):
    assert "is not a file" in run("train", "nowhere.jsonl", "m", exit_code=2).output


def test_a_log_without_a_common_title_is_refused(run, tmp_path):
    (tmp_path / "log.jsonl").write_text(next(log_lines()))
    with pytest.raises(ModelError, match="no item was liked by 3 users"):
        run("train", "log.jsonl", "m")
    assert not (tmp_path / "m").exists()
