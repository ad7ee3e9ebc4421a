import json
import time
from collections import Counter
from hashlib import sha256

import numpy as np
import oracle
import pytest
from integration.worker_process import (
    BASE_MS,
    SECRET,
    Sent,
    deployed,
    event,
    sent,
    some_traffic,
    user,
)
from waiting import eventually

from streamer.events import MAX_VALUE_BYTES
from streamer.factors import FoldInParams
from streamer.models import publish, write_model

N_FACTORS = 8
FIVE_MINUTES_MS = 5 * 60 * 1000


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        yield deployment


def bad_records():
    """Records that must be dead letters, with their reasons."""
    at = {"headers": (("trace", b"\x00\xff"), ("none", None))}
    return [
        (Sent("play", None, None), "empty_value"),
        (Sent("play", b"", b""), "empty_value"),
        (sent("browse", 1, b"{", **at), "not_json"),
        (sent("play", 2, b'["' + user(2).encode() + b'"]', **at), "not_an_object"),
        (sent("browse", 3, event("sneeze", 3)), "unknown_type"),
        (sent("play", 4, event("play_stop", 4, watched_s="long")), "bad_number"),
        (sent("play", 5, event("play_stop", 5, time_ms=BASE_MS * 3)), "too_far_ahead"),
        (sent("play", 6, event("play_stop", 6, user_id=f"{SECRET}\x07")), "bad_user_id"),
        (sent("browse", 7, event("thumb_up", 7, note="x" * MAX_VALUE_BYTES), **at), "too_large"),
    ]


def test_every_event_of_a_plain_producer_is_in_redis_or_in_the_dead_letters(deployment):
    deployment.create_topics()
    deployment.produce([record for record, _ in bad_records()])
    deployment.produce(some_traffic(1, 2500, bad_share=0.05))
    worker = deployment.start_worker()
    deployment.wait_until_counted(worker)
    deployment.produce([sent("browse", 3, event("forget", 3))])
    deployment.produce(some_traffic(2, 300, bad_share=0.05))
    deployment.wait_until_counted(worker)

    assert deployment.histories() == deployment.expected_histories()
    log = deployment.log()
    rejected = [r for r in log if oracle.verdict(r.value, r.timestamp_ms) is None]
    n_sent = deployment.n_sent
    assert worker.counts() == (n_sent, n_sent - len(rejected), len(rejected), 0)
    for name, topic in deployment.topics.items():
        n_records = sum(record.partition.topic == topic for record in log)
        assert worker.total("records_consumed_total", topic=topic) == n_records, name

    letters = {
        (headers["topic"].decode(), int(headers["partition"]), int(headers["offset"])): letter
        for letter in deployment.dead_letters()
        for headers in [dict(letter.headers)]
    }
    assert len(letters) == len(rejected)
    reasons = Counter()
    for record in rejected:
        letter = letters[*record.partition, record.offset]
        *original, reason, _, _, _ = letter.headers
        assert reason[0] == "reason"
        reasons[reason[1].decode()] += 1
        assert letter.partition.topic == f"{record.partition.topic}.dlq"
        assert letter.timestamp_ms == record.timestamp_ms
        if len(record.value or b"") > MAX_VALUE_BYTES:
            digest = sha256(record.value).hexdigest()
            assert json.loads(letter.value) == {"sha256": digest, "size": len(record.value)}
            assert (letter.key, original) == (None, [])
        else:
            assert (letter.key, letter.value) == (record.key, record.value)
            assert original == list(record.headers)
    assert reasons >= Counter(reason for _, reason in bad_records())
    for reason, number in reasons.items():
        assert worker.total("records_dead_lettered_total", reason=reason) == number
    assert worker.terminate() == 0


def test_no_output_of_a_worker_names_a_user(deployment):
    deployment.create_topics()
    deployment.redis.hset(oracle.history_key(user(1)), "not", "a history")
    deployment.redis.set(oracle.history_key(user(2)), b"SH\2 neither is this")
    worker = deployment.start_worker(log__level="debug")
    deployment.produce([record for record, _ in bad_records()])
    deployment.produce(some_traffic(3, 200, bad_share=0.3))
    deployment.wait_until_counted(worker)
    eventually(lambda: worker.said("values_quarantined"))
    assert worker.total("histories_quarantined_total") == 2
    assert deployment.redis.hgetall("st:q:" + oracle.history_key(user(1))[3:]) == {
        b"not": b"a history"
    }
    assert SECRET not in worker.get("/metrics")[1]
    worker.terminate()
    assert SECRET not in worker.output
    assert worker.output.count("\n") < 20


# --- models --------------------------------------------------------------------------------------


def make_model(deployment, seed):
    """Write a model folder that knows two thirds of the titles; return it and the oracle's."""
    folder = deployment.folder / f"model{seed}"
    item_ids = [f"title-{number}" for number in range(40)]
    factors = np.random.default_rng(seed).normal(size=(40, N_FACTORS)).astype(np.float32)
    model_id = write_model(
        folder,
        params=FoldInParams(alpha=3.0, regularization=0.7),
        item_ids=item_ids,
        item_factors=factors,
        popularity=np.ones(40, np.float32),
    )
    known = oracle.Model(
        {oracle.item_key(item): row for item, row in zip(item_ids, factors, strict=True)}, 3.0, 0.7
    )
    return folder, model_id, known


def publish_and_wait(deployment, worker, folder, model_id):
    assert worker.port  # it has started
    pointer = publish(deployment.redis, deployment.models, folder, "default")
    started = time.monotonic()
    eventually(lambda: worker.total("model_info", model_id=model_id) == 1, 5)
    assert time.monotonic() - started < 2
    assert pointer.model_id == model_id
    return pointer


def features_of(deployment):
    values = deployment.values("st:f:*")
    return {key: oracle.read_features(value) for key, value in values.items()}


def ensure_features(features, state, model, model_id, generation):
    assert features.dtype == 2
    assert (features.n_vectors, features.n_factors) == (2, N_FACTORS)
    assert features.model_id == int(model_id, 16)
    assert features.generation == generation
    assert features.history_digest == state.digest
    assert features.n_interactions == len(state.entries)
    assert features.as_of_ms == state.newest_first()[0].event_time_ms
    assert abs(features.written_ms - time.time() * 1000) < 60_000
    for vector, floor in zip(features.vectors, (None, 1.0), strict=True):
        solution = oracle.fold_in(state, model, floor)
        assert features.n_solved == solution.n_solved
        error = np.linalg.norm(vector - solution.vector)
        assert error <= 1e-3 * max(np.linalg.norm(solution.vector), 1e-9)


def test_a_published_model_makes_features_and_so_does_the_next_one(deployment):
    deployment.create_topics()
    first_folder, first_id, first = make_model(deployment, 1)
    second_folder, second_id, second = make_model(deployment, 2)
    worker = deployment.start_worker()
    deployment.produce(some_traffic(4, 600))
    deployment.wait_until_counted(worker)
    assert deployment.values("st:f:*") == {}
    assert worker.said("model_missing")

    publish_and_wait(deployment, worker, first_folder, first_id)
    deployment.produce(some_traffic(5, 600))
    deployment.wait_until_counted(worker)
    states = {
        key: oracle.read_history(value) for key, value in deployment.expected_histories().items()
    }
    features = features_of(deployment)
    assert len(features) == len(states)
    for key, state in states.items():
        who = key.partition("}:")[2]
        ensure_features(features[oracle.features_key(who, "default")], state, first, first_id, 1)

    publish_and_wait(deployment, worker, second_folder, second_id)
    deployment.produce([sent("browse", 1, event("thumb_up", 1, "title-1", BASE_MS + 4_000_000))])
    deployment.wait_until_counted(worker)
    features = features_of(deployment)
    touched = oracle.features_key(user(1), "default")
    state = oracle.read_history(deployment.histories()[oracle.history_key(user(1))])
    ensure_features(features.pop(touched), state, second, second_id, 2)
    # The others are in the worker's cache and follow without an event of theirs.
    eventually(lambda: {each.generation for each in features_of(deployment).values()} == {2})
    assert worker.total("model_info") == 1
    assert worker.terminate() == 0


def test_who_is_forgotten_stays_forgotten_until_they_come_back(deployment):
    deployment.create_topics()
    folder, model_id, model = make_model(deployment, 1)
    worker = deployment.start_worker()
    publish_and_wait(deployment, worker, folder, model_id)
    old = [
        record
        for second in range(5)
        for who in (1, 2)
        for record in (
            sent("play", who, event("play_stop", who, f"title-{second}", BASE_MS + second)),
            sent("browse", who, event("thumb_up", who, f"title-{second}", BASE_MS + second)),
        )
    ]
    deployment.produce(old)
    deployment.wait_until_counted(worker)
    history = oracle.history_key(user(1))
    features = oracle.features_key(user(1), "default")
    # A variant that is not served any more, but was.
    deployment.redis.sadd("st:variants", "retired")
    retired = oracle.features_key(user(1), "retired")
    deployment.redis.set(retired, deployment.redis.get(features))

    deployment.produce([sent("browse", 1, event("forget", 1))])
    deployment.wait_until_counted(worker)
    forget = next(r for r in deployment.log() if b'"forget"' in r.value)
    until_ms = forget.timestamp_ms + FIVE_MINUTES_MS
    tombstone = oracle.State(forgotten_before_ms=until_ms).to_bytes()
    assert deployment.redis.get(history) == tombstone
    assert len(tombstone) == 24
    assert deployment.redis.exists(features, retired) == 0
    days_left = deployment.redis.pttl(history) / 86_400_000
    assert 29 < days_left <= 30
    assert deployment.redis.exists(oracle.features_key(user(2), "default")) == 1

    deployment.produce(old)  # a replay, on purpose or not
    deployment.wait_until_counted(worker)
    assert deployment.redis.get(history) == tombstone
    assert deployment.redis.exists(features, retired) == 0
    assert worker.total("interactions_merged_total", outcome="forgotten") == 10

    later = event("play_stop", 1, "title-3", until_ms + 1)
    deployment.produce([sent("play", 1, later)])
    deployment.wait_until_counted(worker)
    state = oracle.State(forgotten_before_ms=until_ms).learn(
        [oracle.Interaction(oracle.item_key("title-3"), oracle.PLAY, until_ms + 1, 200)]
    )
    assert deployment.redis.get(history) == state.to_bytes()
    ensure_features(features_of(deployment)[features], state, model, model_id, 1)
    assert deployment.histories() == deployment.expected_histories()
    assert worker.terminate() == 0
