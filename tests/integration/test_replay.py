"""A replay of topics between two times: the same as of a file with those records."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from worlds import NOW_MS, event, item_model

from streamer.cli.main import cli
from streamer.errors import BrokerUnavailable
from streamer.kafka.stretch import Topics
from streamer.models import ModelNotes, write_model

N_EVENTS = 300
SECOND_MS = 1_000


def log_values():
    rng = np.random.default_rng(6)
    for n in range(N_EVENTS):
        yield event(f"u{rng.integers(15)}", f"title-{rng.integers(40)}", NOW_MS + n * SECOND_MS)


@pytest.fixture
def topics(bootstrap_servers, unique_name):
    """Two topics with the log in them; each record's timestamp is its event time."""
    names = [f"{unique_name}-play", f"{unique_name}-browse"]
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    keep = {"retention.ms": "-1"}  # or the broker deletes them within a minute, as too old
    new = [NewTopic(name, 2, 1, config=keep) for name in names]
    for created in admin.create_topics(new).values():
        created.result(10)
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for n, value in enumerate(log_values()):
        at_ms = NOW_MS + n * SECOND_MS
        producer.produce(names[n % 2], value, partition=n // 2 % 2, timestamp=at_ms)
    assert producer.flush(20) == 0
    return names


@pytest.fixture
def run(bootstrap_servers, topics, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMER__KAFKA__BOOTSTRAP_SERVERS", bootstrap_servers)
    monkeypatch.setenv("STREAMER__KAFKA__PLAY_TOPIC", topics[0])
    monkeypatch.setenv("STREAMER__KAFKA__BROWSE_TOPIC", topics[1])
    model = item_model()
    write_model(
        tmp_path / "m",
        params=model.params,
        item_ids=list(model.item_ids),
        item_factors=model.item_factors,
        popularity=model.popularity,
        notes=ModelNotes(trained_through=NOW_MS + 100 * SECOND_MS),
    )

    def invoke(log, *args):
        words = ["replay", log, "--model", "m", "--json", "-", *args]
        result = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return invoke


def file_of(folder, values):
    (folder / "log.jsonl").write_bytes(b"\n".join(values))
    return "log.jsonl"


def at(n):
    return np.datetime_as_string(np.datetime64(NOW_MS + n * SECOND_MS, "ms"), timezone="UTC")


def test_topics_give_what_a_file_of_their_records_gives(run, tmp_path):
    assert run("kafka:") == run(file_of(tmp_path, log_values()))


def test_a_stretch_is_between_two_times(run, tmp_path):
    values = list(log_values())[150:250]
    by_file = run(file_of(tmp_path, values), "--targets-from", "0.5")
    found = run("kafka:", "--since", at(150), "--until", at(250), "--targets-from", "0.5")
    assert found == by_file
    assert found["events"] == 100


def test_topics_may_be_named(run, topics, tmp_path):
    values = list(log_values())[::2]
    assert run(f"kafka:{topics[0]}") == run(file_of(tmp_path, values))


def test_a_replay_that_only_learns_reads_topics_too(run):
    assert run("kafka:", "--no-metrics", "--until", at(200))["events"] == 200


def test_a_stretch_that_is_empty_has_no_record(bootstrap_servers, topics):
    kept = Topics({}, bootstrap_servers, topics)
    stretch = kept.between(NOW_MS + 10 * N_EVENTS * SECOND_MS, None)
    assert stretch.n_offsets == 0
    assert list(kept.read(stretch)) == []


def test_a_beginning_that_is_gone_is_told(bootstrap_servers, topics, eventually):
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    (deleted,) = admin.delete_records([TopicPartition(topics[0], 1, 20)]).values()
    deleted.result(10)
    kept = Topics({}, bootstrap_servers, topics)
    stretch = eventually(lambda: (found := kept.between(NOW_MS, None)).cut and found)
    assert {tuple(partition): offset for partition, offset in stretch.cut.items()} == {
        (topics[0], 1): 20
    }
    assert stretch.n_offsets == len(list(kept.read(stretch))) == N_EVENTS - 20
    assert kept.between(NOW_MS + 200 * SECOND_MS, None).cut == {}


def test_a_topic_that_is_missing_is_named(bootstrap_servers, unique_name):
    with pytest.raises(BrokerUnavailable, match=f"topic {unique_name} does not exist"):
        Topics({}, bootstrap_servers, [unique_name]).between(None, None)
