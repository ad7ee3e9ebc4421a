import json
import os
import signal
import subprocess
import time
from binascii import crc32

import numpy as np
import oracle
import pytest
from click.testing import CliRunner
from integration.worker_process import BASE_MS, STREAMER, deployed, event, sent, user
from waiting import eventually

from streamer.cli.main import cli
from streamer.errors import BrokerUnavailable
from streamer.events import MAX_AHEAD_MS, RejectReason
from streamer.factors import FoldInParams
from streamer.kafka.dead_letters import KafkaDeadLetters
from streamer.models import publish, write_model
from streamer.pipeline.records import Partition, Record, Rejected

ANN, BEN = 1, 2
HISTORY = oracle.history_key(user(ANN))


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def environment_of(deployment):
    return {
        f"STREAMER__{name.replace('.', '__').upper()}": str(value)
        for name, value in deployment.settings().items()
    }


def run(deployment, *arguments, exit_code=0):
    environment = environment_of(deployment)
    done = CliRunner().invoke(cli, arguments, env=environment, catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.output


def forget(deployment, who=ANN, *arguments, exit_code=0):
    return json.loads(
        run(deployment, "forget", user(who), "--json", *arguments, exit_code=exit_code)
    )


def publish_a_model(deployment, variant="default"):
    folder = deployment.folder / "model"
    if not folder.exists():
        factors = np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)
        write_model(
            folder,
            params=FoldInParams(alpha=3.0, regularization=0.7),
            item_ids=[f"title-{number}" for number in range(60)],
            item_factors=factors,
            popularity=np.ones(60, np.float32),
        )
    publish(deployment.redis, deployment.models, folder, variant)


def watch(deployment, who, *titles, time_ms=BASE_MS):
    deployment.produce(
        [
            sent(topic, who, event("play_stop", who, f"title-{title}", time_ms + title))
            for title in titles
            for topic in ("play", "browse")
        ]
    )


def tombstone(receipt):
    """Return what the oracle makes of a history with nothing but a forget in it."""
    return oracle.State().learn([], receipt["forgotten_before_ms"]).to_bytes()


def everything(deployment):
    """Return every key of Redis with all that it holds, as bytes."""
    readers = {
        b"string": lambda key: [deployment.redis.get(key) or b""],
        b"hash": lambda key: [x for pair in deployment.redis.hgetall(key).items() for x in pair],
        b"set": lambda key: list(deployment.redis.smembers(key)),
        b"list": lambda key: deployment.redis.lrange(key, 0, -1),
        b"zset": lambda key: deployment.redis.zrange(key, 0, -1),
        b"none": lambda _: [],  # gone since it was found
    }
    return {key: readers[deployment.redis.type(key)](key) for key in deployment.redis.scan_iter()}


def found_in(deployment, who):
    """Return the keys in whose name the id stands, and those in whose values it does."""
    needle = user(who).encode()
    keys = everything(deployment)
    names = {key.decode() for key in keys if needle in key}
    return names, {key.decode() for key, values in keys.items() if needle in b"\0".join(values)}


def bury(deployment, *letters):
    """Write dead letters of (topic, key, value, time, reason) as a worker does."""
    rejected = [
        Rejected(Record(Partition(deployment.topics[topic], 0), 10**6 + n, at_ms, key, value), why)
        for n, (topic, key, value, at_ms, why) in enumerate(letters)
    ]
    dead_letters = KafkaDeadLetters({}, deployment.bootstrap_servers, ".dlq")
    dead_letters.send(rejected)

    def is_done():
        try:
            return dead_letters.is_delivered(1)
        except BrokerUnavailable:
            return False

    eventually(is_done)
    dead_letters.close()


def test_a_forgotten_user_leaves_nothing_but_the_name_of_one_key(deployment):
    publish_a_model(deployment)
    publish_a_model(deployment, "rows-2")
    worker = deployment.start_worker()
    eventually(lambda: worker.total("model_info") == 1)
    watch(deployment, ANN, 1, 2, 3)
    watch(deployment, BEN, 1, 2)
    deployment.wait_until_counted(worker)
    eventually(lambda: len(deployment.values("st:f:*")) == 2)
    bucket = oracle.bucket(user(ANN))
    planted = [
        f"st:{kind}:{{{bucket}}}:{variant}{user(ANN)}"
        for kind, variant in [
            ("f", "rows-2:"),
            ("u", "default:"),
            ("u", "rows-2:"),
            ("q:h", ""),
            ("q:f", "default:"),
            ("q:f", "rows-2:"),
            ("q:u", "default:"),
        ]
    ]
    for key in planted:
        deployment.redis.set(key, b"something of " + user(ANN).encode())
    assert len(found_in(deployment, ANN)[0]) == 2 + len(planted)
    others = {
        key: value for key, value in deployment.values("st:[hf]:*").items() if user(BEN) in key
    }

    receipt = forget(deployment)
    assert receipt["applied"]
    assert receipt["user_id"] == user(ANN)
    assert receipt["history"] == {
        "entries_before": 3,
        "entries": 0,
        "bytes": 24,
        "forgotten_before_ms": receipt["forgotten_before_ms"],
    }
    assert receipt["forgotten_before_ms"] == receipt["written"]["timestamp_ms"] + MAX_AHEAD_MS
    assert set(receipt["deleted"]) == {oracle.features_key(user(ANN), "default"), *planted}
    assert receipt["left"] == []
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    assert found_in(deployment, ANN) == ({HISTORY}, set())
    assert 29 < deployment.redis.ttl(HISTORY) / 86_400 <= 30
    assert others == {
        key: value for key, value in deployment.values("st:[hf]:*").items() if user(BEN) in key
    }
    (record,) = [r for r in deployment.log() if b'"forget"' in r.value]
    written = receipt["written"]
    assert record.key == user(ANN).encode()
    assert (record.partition.topic, record.partition.number, record.offset) == (
        deployment.topics["play"],
        written["partition"],
        written["offset"],
    )
    assert record.timestamp_ms == written["timestamp_ms"]
    assert worker.terminate() == 0


def test_a_replay_from_the_first_offset_does_not_bring_the_user_back(deployment):
    publish_a_model(deployment)
    worker = deployment.start_worker()
    watch(deployment, ANN, 1, 2, 3)
    receipt = forget(deployment)
    watch(deployment, ANN, 4)  # what was still on its way
    watch(deployment, BEN, 5)
    eventually(lambda: sum(worker.counts()[1:]) == 11)
    assert worker.terminate() == 0
    replaying = deployment.start_worker(kafka__group_id=f"{deployment.name}-replay")
    eventually(lambda: replaying.counts() == (11, 11, 0, 0), 30)
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    assert found_in(deployment, ANN) == ({HISTORY}, set())
    assert oracle.history_key(user(BEN)) in deployment.histories()
    assert replaying.terminate() == 0


def test_a_replay_into_an_empty_redis_does_not_bring_the_user_back(deployment):
    worker = deployment.start_worker()
    watch(deployment, ANN, 1, 2, 3)
    receipt = forget(deployment)
    assert worker.terminate() == 0
    deployment.redis.flushall()
    replaying = deployment.start_worker(kafka__group_id=f"{deployment.name}-replay")
    eventually(lambda: replaying.counts() == (7, 7, 0, 0), 30)
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    assert replaying.terminate() == 0


def test_a_fail_over_that_forgets_the_tombstone_does_not_bring_the_user_back(deployment):
    publish_a_model(deployment)
    worker = deployment.start_worker()
    watch(deployment, ANN, 1, 2, 3)
    deployment.wait_until_counted(worker)
    eventually(lambda: deployment.committed() == deployment.ends())
    eventually(lambda: len(deployment.values("st:f:*")) == 1)
    copy = {key: deployment.redis.dump(key) for key in deployment.redis.scan_iter()}
    receipt = forget(deployment)
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    eventually(lambda: sum(deployment.committed().values()) == 7)

    with deployment.redis.pipeline() as pipeline:
        pipeline.flushall()
        for key, value in copy.items():
            pipeline.restore(key, 0, value)
        pipeline.execute()
    assert len(found_in(deployment, ANN)[0]) == 2  # back for a moment
    eventually(lambda: found_in(deployment, ANN) == ({HISTORY}, set()), 30)
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    assert worker.total("rewinds_total") > 0
    watch(deployment, ANN, 1, 4)
    eventually(lambda: worker.total("partition_next_offset") == 11)
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    assert worker.terminate() == 0


def test_a_worker_with_the_user_in_its_cache_does_not_bring_them_back(deployment):
    """One worker reads the user's events, another one the forget."""
    publish_a_model(deployment)
    workers = [deployment.start_worker(), deployment.start_worker()]
    eventually(lambda: all(worker.reads(2) for worker in workers), 30)
    forgetting = crc32(user(ANN).encode()) % 2
    (stranger,) = [n for n in range(BEN, 50) if crc32(user(n).encode()) % 2 != forgetting][:1]

    def watch_elsewhere(title):
        value = event("play_stop", ANN, f"title-{title}", BASE_MS + title)
        deployment.produce([sent("browse", stranger, value)])

    watch_elsewhere(1)
    eventually(lambda: len(deployment.values("st:f:*")) == 1)
    receipt = forget(deployment)
    caching, other = sorted(workers, key=lambda worker: worker.counts()[0] - worker.counts()[1])
    counted = sorted(worker.counts() for worker in workers)
    assert counted == [(1, 1, 0, 0), (1, 1, 0, 0)]  # each of them has one of the two
    watch_elsewhere(2)
    eventually(lambda: sum(worker.counts()[1] for worker in workers) == 3)
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    assert found_in(deployment, ANN) == ({HISTORY}, set())
    assert sum(worker.total("redis_conflicts_total") for worker in workers) == 1
    assert caching.terminate() == other.terminate() == 0


def test_the_users_dead_letters_are_found_by_key_field_and_text(deployment):
    now_ms = int(time.time() * 1000)
    ann = user(ANN).encode()
    bury(
        deployment,
        ("play", ann, b"{", now_ms, RejectReason.NOT_JSON),
        ("play", b"else", event(who=ANN, watched_s="long"), now_ms, RejectReason.BAD_NUMBER),
        ("browse", None, b'{"user_id": "%s", "item' % ann, now_ms, RejectReason.NOT_JSON),
        ("browse", ann, event(who=ANN, note="x" * 70_000), now_ms, RejectReason.TOO_LARGE),
        ("browse", user(BEN).encode(), b"{", now_ms, RejectReason.NOT_JSON),
        ("play", ann + b"1", event(who=11), now_ms, RejectReason.BAD_NUMBER),
    )
    worker = deployment.start_worker()
    receipt = forget(deployment)
    play, browse = (f"{topic}.dlq" for topic in deployment.topics.values())
    found = {
        (letter["topic"], letter["partition"], letter["offset"]): (
            letter["reason"],
            letter["named_by"],
        )
        for letter in receipt["dead_letters"]
    }
    assert found == {
        (play, 0, 0): ("not_json", "key"),
        (play, 0, 1): ("bad_number", "user_id"),
        (browse, 0, 0): ("not_json", "text"),
    }
    assert receipt["dead_letters_found"] == 3
    assert (receipt["dead_letters_reduced"], receipt["dead_letters_complete"]) == (1, True)
    text = run(deployment, "forget", user(ANN))
    assert f"{play} 0 1  bad_number, named by user_id" in text
    assert "1 more letters are hash and size only: nobody can say whose they are" in text
    assert "a bare header" in text
    assert worker.terminate() == 0


def test_a_redriven_letter_brings_back_only_what_is_dated_after_the_forget(deployment):
    worker = deployment.start_worker()
    watch(deployment, ANN, 1)
    receipt = forget(deployment)
    until_ms = receipt["forgotten_before_ms"]
    now_ms = int(time.time() * 1000)
    old, new = (event("play_stop", ANN, f"title-{after}", until_ms + after) for after in (0, 1))
    bury(deployment, ("play", user(ANN).encode(), old, now_ms, RejectReason.BAD_NUMBER))
    run(deployment, "dlq", "redrive")
    eventually(lambda: sum(worker.counts()[1:]) == 4)
    assert deployment.redis.get(HISTORY) == tombstone(receipt)
    bury(deployment, ("play", user(ANN).encode(), new, now_ms, RejectReason.BAD_NUMBER))
    run(deployment, "dlq", "redrive")
    eventually(lambda: sum(worker.counts()[1:]) == 5)
    learned = oracle.State().learn(
        [oracle.verdict(new, until_ms).interaction], receipt["forgotten_before_ms"]
    )
    assert deployment.redis.get(HISTORY) == learned.to_bytes()
    assert worker.terminate() == 0


def test_without_a_worker_the_forget_is_written_and_that_is_exit_75(deployment):
    worker = deployment.start_worker()
    watch(deployment, ANN, 1)
    deployment.wait_until_counted(worker)
    assert worker.terminate() == 0
    before = deployment.redis.get(HISTORY)
    started = time.monotonic()
    receipt = forget(deployment, ANN, "--timeout", "0.3", exit_code=75)
    assert time.monotonic() - started < 20
    assert not receipt["applied"]
    assert (receipt["history"]["entries"], receipt["deleted"]) == (1, [])
    assert deployment.redis.get(HISTORY) == before
    assert "NOT YET" in run(deployment, "forget", user(BEN), "--timeout", "0.1", exit_code=75)
    worker = deployment.start_worker()
    eventually(lambda: deployment.redis.get(HISTORY) == tombstone(receipt), 30)
    assert worker.terminate() == 0


def test_ctrl_c_while_it_waits_ends_the_wait_and_not_the_receipt(deployment):
    """The event is written, and cannot be taken back."""
    process = subprocess.Popen(
        [STREAMER, "forget", user(ANN), "--json", "--timeout", "600"],
        env=deployment.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: any(b"forget" in record.value for record in deployment.log()), 60)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75
    assert json.loads(out)["applied"] is False


def test_a_user_of_whom_nothing_is_known_is_forgotten_all_the_same(deployment):
    worker = deployment.start_worker()
    receipt = forget(deployment, 77)
    assert (receipt["applied"], receipt["history"]["entries_before"]) == (True, 0)
    assert deployment.histories() == {oracle.history_key(user(77)): tombstone(receipt)}
    assert worker.terminate() == 0


def complaint(deployment, *arguments, exit_code, **settings):
    names = {f"STREAMER__{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [STREAMER, "forget", *arguments],
        env=os.environ | environment_of(deployment) | names,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    return done.stderr


def test_nothing_is_written_where_the_id_is_wrong_or_a_server_is_not_there(deployment):
    assert "1 to 128 bytes" in complaint(deployment, "a\nb", exit_code=2)
    assert "1 to 128 bytes" in complaint(deployment, "x" * 129, exit_code=2)
    for settings in (
        {"redis__url": "redis://127.0.0.1:1/0"},
        {"kafka__play_topic": "no-such-topic"},
        {"kafka__bootstrap_servers": "127.0.0.1:1"},
    ):
        said = complaint(deployment, user(ANN), exit_code=69, **settings)
        assert said.startswith("streamer: ")
        assert user(ANN) not in said
    assert deployment.log() == []


def test_a_receipt_is_printed_although_the_dead_letters_cannot_be_read(deployment, monkeypatch):
    def broken(*_):
        raise BrokerUnavailable("reading the log: gone")

    worker = deployment.start_worker()
    monkeypatch.setattr("streamer.cli.forget.read_log", broken)
    done = CliRunner().invoke(cli, ["forget", user(ANN), "--json"], env=environment_of(deployment))
    assert isinstance(done.exception, BrokerUnavailable)
    receipt = json.loads(done.stdout)
    assert (receipt["applied"], receipt["dead_letters_complete"]) == (True, False)
    assert worker.terminate() == 0
