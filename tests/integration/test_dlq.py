import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import oracle
import orjson
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from integration.worker_process import (
    BASE_MS,
    STREAMER,
    deployed,
    event,
    sent,
    some_traffic,
    user,
)
from waiting import eventually

from streamer.cli.main import cli
from streamer.cli.moments import in_utc
from streamer.errors import BrokerUnavailable
from streamer.events import RejectReason
from streamer.kafka.dead_letters import KafkaDeadLetters
from streamer.kafka.letter_survey import Survey
from streamer.kafka.letters import letter_of
from streamer.kafka.log_reader import read_log
from streamer.kafka.redrive import Redriver
from streamer.kafka.topics import create_topics, topic_specs
from streamer.pipeline.records import Partition, Record, Rejected

HOUR_MS = 3_600_000
START_MS = int(time.time() * 1000) - 3 * HOUR_MS
"""A recent past: the broker deletes letters, and a redrive leaves them out, by their age."""


@pytest.fixture
def topicless(bootstrap_servers, redis_url, unique_name, tmp_path):
    """A deployment whose topics are not there yet."""
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        yield deployment


@pytest.fixture
def deployment(topicless):
    topicless.create_topics()
    return topicless


def create_event_topics(deployment, **settings):
    """Make the topics, the event topics with settings of their own."""
    names = list(deployment.topics.values())
    specs = topic_specs(names, ".dlq", partitions=2, replication=1, retention_days=7)
    more = {name.replace("_", "."): value for name, value in settings.items()}
    specs = [
        replace(spec, settings=spec.settings | more) if spec.name in names else spec
        for spec in specs
    ]
    create_topics(deployment.admin, specs)


def environment_of(deployment, **settings):
    names = deployment.settings() | settings
    return {f"STREAMER__{n.replace('.', '__').upper()}": str(v) for n, v in names.items()}


def run(deployment, *arguments, exit_code=0, **settings):
    """Run `streamer dlq` in this process; return what it printed."""
    environment = environment_of(deployment, **settings)
    done = CliRunner().invoke(cli, ["dlq", *arguments], env=environment, catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.output


def complaint(deployment, *arguments, exit_code, **settings):
    """Run `streamer dlq` as a process that must fail; return its one line."""
    done = subprocess.run(
        [STREAMER, "dlq", *arguments],
        env=os.environ | environment_of(deployment, **settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    assert done.stderr.startswith("streamer: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def run_json(deployment, verb, *arguments, **more):
    return json.loads(run(deployment, verb, "--json", *arguments, **more))


def bury(deployment, *rejected):
    """Write letters as a worker does, of records that no longer have to be in their topic."""
    letters = KafkaDeadLetters({}, deployment.bootstrap_servers, ".dlq")
    letters.send(rejected)
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline
        try:
            if letters.is_delivered(1):
                break
        except BrokerUnavailable:
            continue
    letters.close()


def rejected_of(deployment, record, offset, at_ms, reason=RejectReason.BAD_NUMBER):
    """A record that a worker had to reject, whose offset is far from those of the test."""
    place = Partition(deployment.topics[record.topic], offset % 2)
    return Rejected(
        Record(place, 10**6 + offset, at_ms, record.key, record.value, record.headers), reason
    )


def rfc_3339(time_ms):
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()


def letters_of(deployment):
    return [letter for letter in map(letter_of, deployment.dead_letters()) if letter]


def group_of(listed, reason, topic):
    (group,) = [g for g in listed["groups"] if (g["reason"], g["topic"]) == (reason, topic)]
    return group


def recent(record):
    """Return a record of traffic whose event is of the hour after START_MS."""
    fields = orjson.loads(record.value)
    fields["event_time"] += START_MS - BASE_MS
    return record._replace(value=orjson.dumps(fields))


def split(seed, n_events):
    """Return traffic of which some was rejected, with the time of its records, and the rest."""
    random = Random(seed)
    traffic = [recent(record) for record in some_traffic(seed, n_events)]
    at_ms = START_MS + HOUR_MS
    traffic += [sent("play", who, event("forget", who, time_ms=START_MS)) for who in (3, 5, 8)]
    rejected, others = [], []
    for record in traffic:
        is_forget = b'"forget"' in record.value
        if is_forget or random.random() < 0.25:
            # A forget in mid-stream: what is dated before it goes, the rest stays.
            rejected.append((record, START_MS + HOUR_MS // 2 if is_forget else at_ms))
        else:
            others.append(record)
    return rejected, others


def histories_of(deployment, rejected):
    """Return what Redis would hold if the rejected ones had been accepted at their time."""
    verdicts = [oracle.verdict(record.value, at_ms) for record, at_ms in rejected]
    assert None not in verdicts
    verdicts += [oracle.verdict(r.value, r.time_ms) for r in deployment.produced]
    states = oracle.replay(verdict for verdict in verdicts if verdict)
    return {
        oracle.history_key(who): state.to_bytes()
        for who, state in states.items()
        if state != oracle.State()
    }


def test_redriven_events_end_in_the_same_state_as_if_they_had_never_failed(deployment):
    rejected, others = split(31, 1200)
    bury(
        deployment,
        *(
            rejected_of(deployment, record, offset, at_ms)
            for offset, (record, at_ms) in enumerate(rejected)
        ),
    )
    deployment.produce(others)
    worker = deployment.start_worker()
    deployment.wait_until_counted(worker)
    expected = histories_of(deployment, rejected)
    assert deployment.histories() != expected

    planned = run_json(deployment, "redrive", "--dry-run")
    assert (planned["planned"], planned["redriven"]) == (len(rejected), 0)
    assert len(deployment.log()) == len(others)  # nothing was sent

    done = run_json(deployment, "redrive", "--reason", "bad_number")
    assert (done["redriven"], done["refused"], done["stopped"]) == (len(rejected), 0, False)
    eventually(lambda: deployment.histories() == expected, 20, 0.1)
    n_records = len(others) + len(rejected)
    eventually(lambda: worker.counts() == (n_records, n_records, 0, 0))

    again = run_json(deployment, "redrive")
    assert (again["redriven"], again["redriven_before"]) == (0, len(rejected))
    assert len(deployment.log()) == n_records
    assert deployment.histories() == expected
    verified = CliRunner().invoke(cli, ["verify", "--json"], env=environment_of(deployment))
    assert (verified.exit_code, json.loads(verified.output)["different"]) == (0, 0)
    assert worker.terminate() == 0


def test_a_redriven_record_is_the_rejected_one_in_its_own_partition(deployment):
    headers = (("trace", b"\x00\xff"), ("offset", b"mine"), ("none", None))
    records = [
        sent("play", 1, b"\xff\x00{", headers=headers),
        sent("browse", 2, None),
        sent("browse", 2, b"", headers=headers)._replace(key=None),
    ]
    at_ms = int(time.time() * 1000) - HOUR_MS
    bury(
        deployment,
        *(rejected_of(deployment, record, n, at_ms + n) for n, record in enumerate(records)),
    )
    assert run_json(deployment, "redrive")["redriven"] == 3
    log = {record.partition: record for record in deployment.log()}
    for number, record in enumerate(records):
        place = Partition(deployment.topics[record.topic], number % 2)
        redriven = log[place]
        assert (redriven.key, redriven.value) == (record.key, record.value)
        assert tuple(redriven.headers) == (
            *record.headers,
            ("redriven_from", f"{place.topic}/{place.number}/{10**6 + number}".encode()),
            ("original_timestamp", b"%d" % (at_ms + number)),
            ("redrive_attempt", b"1"),
        )


def test_with_producers_timestamps_a_redriven_record_keeps_its_own(topicless):
    deployment = topicless
    create_event_topics(deployment, message_timestamp_type="CreateTime")
    at_ms = int(time.time() * 1000) - HOUR_MS
    bury(deployment, rejected_of(deployment, sent("play", 1, event(time_ms=at_ms)), 0, at_ms))
    assert run_json(deployment, "redrive")["redriven"] == 1
    (redriven,) = deployment.log()
    assert (redriven.timestamp_ms, redriven.is_append_time) == (at_ms, False)


def let_the_broker_date(deployment):
    name, kind = "message.timestamp.type", "LogAppendTime"
    entry = ConfigEntry(name, kind, incremental_operation=AlterConfigOpType.SET)
    for topic in deployment.topics.values():
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        deployment.admin.incremental_alter_configs([resource])[resource].result(10)


def test_letters_whose_cause_was_mended_are_learned_after_a_redrive(topicless):
    """Producers' clocks were an hour behind, until the broker's own time was set for the topic."""
    deployment = topicless
    create_event_topics(deployment, message_timestamp_type="CreateTime")
    now_ms = int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": deployment.bootstrap_servers, "acks": "all"})
    for number in range(20):
        producer.produce(
            deployment.topics["play"],
            key=user(number).encode(),
            value=event("play_stop", number, time_ms=now_ms - HOUR_MS // 2),
            timestamp=now_ms - HOUR_MS,
        )
    assert producer.flush(20) == 0
    worker = deployment.start_worker()
    eventually(lambda: worker.counts() == (20, 0, 20, 0), 30)
    assert deployment.histories() == {}

    assert run_json(deployment, "redrive")["redriven"] == 20
    eventually(lambda: worker.counts() == (40, 0, 40, 0), 30)  # nothing was mended yet
    group = group_of(run_json(deployment, "list"), "too_far_ahead", deployment.topics["play"])
    assert (group["waiting"], group["redriven"], group["failed_again"]) == (20, 20, 20)

    let_the_broker_date(deployment)

    def is_in_force():  # the brokers take it over a moment later
        assert run_json(deployment, "redrive", "--limit", "1")["redriven"] == 1
        return bool(eventually(lambda: sum(worker.counts()[1:]) == worker.counts()[0])) and (
            len(deployment.histories()) == 1
        )

    eventually(is_in_force, 30)
    run_json(deployment, "redrive")
    state = {
        oracle.history_key(user(number)): oracle.replay(
            [oracle.verdict(event("play_stop", number, time_ms=now_ms - HOUR_MS // 2), now_ms)]
        )[user(number)].to_bytes()
        for number in range(20)
    }
    eventually(lambda: deployment.histories() == state)
    listed = run_json(deployment, "list")
    assert (listed["waiting"], listed["letters"]) == (0, listed["redriven"])
    assert worker.terminate() == 0


def test_poison_letters_are_redriven_once_a_run_are_counted_and_do_not_multiply(deployment):
    worker = deployment.start_worker()
    deployment.produce([sent("play", who, b"{ not json %d" % who) for who in range(7)])
    deployment.produce([sent("play", 1, event(time_ms=START_MS, watched_s="long"))])
    eventually(lambda: worker.counts() == (8, 0, 8, 0))
    for attempt in (1, 2, 3):
        done = run_json(deployment, "redrive", "--reason", "not_json")
        assert (done["redriven"], done["redriven_before"]) == (7, 7 * (attempt - 1))
        n_rejected = 8 + 7 * attempt
        eventually(lambda n=n_rejected: worker.counts()[2] == n)
        listed = run_json(deployment, "list")
        group = group_of(listed, "not_json", deployment.topics["play"])
        assert group["waiting"] == 7
        assert group["failed_again"] == 7 * attempt
        assert group["max_attempts"] == attempt
        assert group_of(listed, "bad_number", deployment.topics["play"])["waiting"] == 1
    newest = letters_of(deployment)[-1]
    assert newest.redriven.n_attempts == 3
    first = next(
        letter for letter in letters_of(deployment) if letter.record.value == newest.record.value
    )
    assert (newest.redriven.place, newest.redriven.offset) == (first.place, first.offset)
    assert newest.redriven.timestamp_ms == first.timestamp_ms
    assert worker.terminate() == 0


def test_reduced_letters_are_counted_said_and_never_sent(deployment):
    large = sent("browse", 1, event("thumb_up", 1, time_ms=START_MS, note="x" * 70_000))
    bury(deployment, rejected_of(deployment, large, 0, START_MS, RejectReason.TOO_LARGE))
    done = run_json(deployment, "redrive")
    assert (done["letters"], done["reduced"], done["redriven"]) == (1, 1, 0)
    assert "1 are reduced to hash and size" in run(deployment, "redrive")
    assert deployment.log() == []
    listed = run_json(deployment, "list", "--reason", "too_large")
    assert (listed["reduced"], listed["waiting"]) == (1, 0)
    assert listed["groups"][0]["samples"][0]["is_reduced"]
    place = letters_of(deployment)[0].record.partition
    assert "cannot be redriven" in run(deployment, "show", place.topic, "0", "0")


def test_what_is_older_than_a_forgotten_users_marker_is_left_out(deployment):
    now_ms = int(time.time() * 1000)
    ages = {1: 3 * 24, 2: 1 * 24}
    bury(
        deployment,
        *(
            rejected_of(
                deployment,
                sent("play", who, event(who=who, time_ms=now_ms - hours * HOUR_MS)),
                who,
                now_ms - hours * HOUR_MS,
            )
            for who, hours in ages.items()
        ),
    )
    short = {"redis.tombstone_days": 2}
    done = run_json(deployment, "redrive", **short)
    assert (done["expired"], done["redriven"]) == (1, 1)
    assert "1 are older than redis.tombstone_days" in run(deployment, "redrive", **short)
    assert [record.key for record in deployment.log()] == [user(2).encode()]


def test_what_a_topic_refuses_is_said_stays_waiting_and_harms_no_other(topicless):
    deployment = topicless
    create_event_topics(deployment, max_message_bytes="2000")
    note = Random(1).randbytes(4000).hex()
    bury(
        deployment,
        rejected_of(deployment, sent("play", 1, event(time_ms=START_MS, who=1)), 0, START_MS),
        rejected_of(
            deployment, sent("play", 2, event(time_ms=START_MS, who=2, note=note)), 1, START_MS
        ),
        rejected_of(deployment, sent("play", 3, event(time_ms=START_MS, who=3)), 2, START_MS),
    )
    done = run_json(deployment, "redrive", exit_code=1)
    assert (done["redriven"], done["refused"]) == (2, 1)
    assert list(done["errors"].values()) == [1]
    assert sorted(r.key for r in deployment.log()) == [user(1).encode(), user(3).encode()]
    listed = run_json(deployment, "list")
    assert (listed["waiting"], listed["redriven"]) == (1, 2)


def test_a_limit_counts_what_was_redriven_and_not_what_a_topic_refuses(topicless):
    """Or the first ones, refused for good, would keep all others waiting."""
    deployment = topicless
    create_event_topics(deployment, max_message_bytes="2000")
    note = Random(1).randbytes(4000).hex()
    bury(
        deployment,
        rejected_of(
            deployment, sent("play", 1, event(time_ms=START_MS, who=1, note=note)), 0, START_MS
        ),
        rejected_of(deployment, sent("play", 2, event(time_ms=START_MS, who=2)), 1, START_MS),
        rejected_of(deployment, sent("play", 3, event(time_ms=START_MS, who=3)), 2, START_MS),
    )
    done = run_json(deployment, "redrive", "--limit", "1", exit_code=1)
    assert (done["redriven"], done["refused"]) == (1, 1)
    assert [record.key for record in deployment.log()] == [user(2).encode()]


def test_one_record_that_a_topic_does_not_date_so_harms_no_other_of_its_batch(topicless):
    deployment = topicless
    create_event_topics(
        deployment,
        message_timestamp_type="CreateTime",
        message_timestamp_before_max_ms=str(HOUR_MS),
    )
    now_ms = int(time.time() * 1000)
    ages = [0, 2 * HOUR_MS, 0, 0]
    bury(
        deployment,
        *(
            rejected_of(
                deployment,
                sent("play", who, event(who=who, time_ms=now_ms - HOUR_MS)),
                2 * who,  # all of one partition
                now_ms - age_ms,
            )
            for who, age_ms in enumerate(ages)
        ),
    )
    done = run_json(deployment, "redrive", exit_code=1)
    assert (done["redriven"], done["refused"]) == (3, 1)
    assert {record.key for record in deployment.log()} == {user(n).encode() for n in (0, 2, 3)}


def test_one_letter_that_the_broker_does_not_date_so_costs_no_other_its_value(deployment):
    now_ms = int(time.time() * 1000)
    ahead_ms = [0, 48 * HOUR_MS, 0, 0]  # by default a topic takes an hour
    bury(
        deployment,
        *(
            rejected_of(deployment, sent("play", who, event(who=who)), who, now_ms + ahead_ms[who])
            for who in range(4)
        ),
    )
    found = {letter.offset - 10**6: letter for letter in letters_of(deployment)}
    assert {number: letter.is_reduced for number, letter in found.items()} == {
        0: False,
        1: True,
        2: False,
        3: False,
    }
    assert found[1].timestamp_ms == now_ms + ahead_ms[1]


def test_a_redrive_that_dies_between_delivery_and_marker_is_repeated_and_changes_nothing(
    deployment, monkeypatch
):
    rejected, others = split(32, 400)
    bury(
        deployment,
        *(rejected_of(deployment, record, n, at_ms) for n, (record, at_ms) in enumerate(rejected)),
    )
    deployment.produce(others)
    names = [f"{topic}.dlq" for topic in deployment.topics.values()]
    survey = Survey(".dlq")
    survey.take(read_log({}, deployment.bootstrap_servers, names))
    waiting = list(survey.waiting(read_log({}, deployment.bootstrap_servers, names)))
    redriver = Redriver({}, deployment.bootstrap_servers, list(deployment.topics.values()))
    with monkeypatch.context() as patch:
        patch.setattr(redriver, "_mark", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            redriver.redrive(waiting[:50])
    assert len(deployment.log()) == len(others) + 50
    assert run_json(deployment, "redrive")["redriven"] == len(rejected)
    worker = deployment.start_worker()
    eventually(lambda: worker.counts()[1] == len(others) + len(rejected) + 50, 20)
    assert deployment.histories() == histories_of(deployment, rejected)
    assert worker.terminate() == 0


def test_a_redrive_that_is_killed_leaves_the_rest_to_the_next_one(deployment):
    rejected, others = split(33, 6000)
    bury(
        deployment,
        *(rejected_of(deployment, record, n, at_ms) for n, (record, at_ms) in enumerate(rejected)),
    )
    deployment.produce(others)
    worker = deployment.start_worker()
    deployment.wait_until_counted(worker)
    process = subprocess.Popen(
        [STREAMER, "dlq", "redrive", "--json"],
        env=os.environ | environment_of(deployment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        eventually(lambda: worker.counts()[0] > len(others), 30, 0.01)
    finally:
        process.kill()
        process.communicate(timeout=10)
    listed = run_json(deployment, "list")
    assert listed["waiting"] + listed["redriven"] == len(rejected)
    done = run_json(deployment, "redrive")
    assert done["redriven"] == listed["waiting"]
    eventually(lambda: deployment.histories() == histories_of(deployment, rejected), 30, 0.2)
    listed = run_json(deployment, "list")
    assert (listed["waiting"], listed["redriven"]) == (0, len(rejected))
    assert worker.terminate() == 0


def test_letters_are_listed_by_topic_reason_and_time_with_samples(deployment):
    long_value = orjson.dumps({"type": "no\x1bsuch", "user_id": user(9), "note": "y" * 5000})
    bury(
        deployment,
        rejected_of(deployment, sent("play", 1, b"{"), 0, START_MS, RejectReason.NOT_JSON),
        rejected_of(deployment, sent("play", 2, b"{{"), 1, START_MS + 9, RejectReason.NOT_JSON),
        rejected_of(
            deployment, sent("browse", 9, long_value), 2, START_MS + 5, RejectReason.UNKNOWN_TYPE
        ),
    )
    listed = run_json(deployment, "list", "--samples", "2")
    assert (listed["letters"], listed["waiting"], listed["foreign"]) == (3, 3, 0)
    group = group_of(listed, "not_json", deployment.topics["play"])
    assert (group["letters"], group["first_ms"], group["last_ms"]) == (2, START_MS, START_MS + 9)
    assert [sample["value"] for sample in group["samples"]] == ["{", "{{"]
    assert group["samples"][1] == {
        "topic": deployment.topics["play"] + ".dlq",
        "partition": 0,
        "offset": 1,
        "reason": "not_json",
        "is_reduced": False,
        "attempts": 0,
        "original": {
            "topic": deployment.topics["play"],
            "partition": 1,
            "offset": 10**6 + 1,
            "timestamp_ms": START_MS + 9,
        },
        "size": 2,
        "value": "{{",
    }
    text = run(deployment, "list")
    assert "\x1b" not in text
    assert "unknown_type" in text
    assert in_utc(START_MS) in text
    browse = deployment.topics["browse"]
    assert run_json(deployment, "list", "--topic", browse)["letters"] == 1
    assert run_json(deployment, "list", "--reason", "not_json")["letters"] == 2
    assert run_json(deployment, "list", "--until", rfc_3339(START_MS + 1))["letters"] == 1
    assert run_json(deployment, "list", "--since", "10m")["letters"] == 0
    assert "not an event topic" in run(deployment, "list", "--topic", "else", exit_code=2)


def test_one_letter_is_shown_whole_by_its_place_or_by_that_of_its_record(deployment):
    value = orjson.dumps({"type": "no\x1bsuch", "user_id": user(9), "note": "y" * 5000})
    headers = (("trace", b"\x00\xff"), ("none", None))
    bury(
        deployment,
        rejected_of(deployment, sent("play", 1, b"{"), 0, START_MS, RejectReason.NOT_JSON),
        rejected_of(
            deployment,
            sent("play", 9, value, headers=headers),
            1,
            START_MS + 5,
            RejectReason.UNKNOWN_TYPE,
        ),
        rejected_of(deployment, sent("play", 2, b"\xff{"), 2, START_MS, RejectReason.NOT_UTF8),
    )
    topic = deployment.topics["play"]
    letter = run_json(deployment, "show", f"{topic}.dlq", "0", "1")
    assert letter == run_json(deployment, "show", topic, "1", str(10**6 + 1))
    assert letter["reason"] == "unknown_type"
    assert (letter["key"], letter["value"]) == (user(9), value.decode())
    assert letter["headers"] == [
        {"name": "trace", "value": {"base64": "AP8="}},
        {"name": "none", "value": None},
    ]
    assert letter["original"]["timestamp_ms"] == START_MS + 5
    assert run_json(deployment, "show", f"{topic}.dlq", "0", "2")["value"] == {"base64": "/3s="}
    text = run(deployment, "show", f"{topic}.dlq", "0", "1")
    assert "\x1b" not in text
    assert "y" * 5000 in text
    for place in ((f"{topic}.dlq", "0", "3"), (f"{topic}.dlq", "7", "0"), (topic, "0", "1")):
        assert "there is no dead letter" in complaint(deployment, "show", *place, exit_code=1)
    assert "is not a topic" in run(deployment, "show", "else", "0", "0", exit_code=2)


def test_a_missing_topic_or_broker_is_exit_69(deployment):
    missing = {"kafka.play_topic": "no-such-topic"}
    assert "no-such-topic.dlq does not exist" in complaint(
        deployment, "list", exit_code=69, **missing
    )
    nobody = {"kafka.bootstrap_servers": "127.0.0.1:1"}
    complaint(deployment, "redrive", exit_code=69, **nobody)


def test_records_that_are_no_letters_are_counted_and_left_alone(deployment):
    topic = deployment.topics["play"]
    producer = Producer({"bootstrap.servers": deployment.bootstrap_servers})
    forged = [("reason", b"not_json"), ("topic", b"orders"), ("partition", b"0"), ("offset", b"1")]
    producer.produce(f"{topic}.dlq", value=b"a note of somebody's")
    producer.produce(f"{topic}.dlq", value=b"{", headers=forged)
    assert producer.flush(20) == 0
    done = run_json(deployment, "redrive")
    assert (done["letters"], done["redriven"]) == (0, 0)
    assert run_json(deployment, "list")["foreign"] == 2
    assert "2 records" in run(deployment, "list")


def test_a_stopped_redrive_ends_after_its_batch_and_says_so(deployment, monkeypatch):
    records = [recent(record) for record in some_traffic(34, 1100)]
    bury(deployment, *(rejected_of(deployment, r, n, START_MS) for n, r in enumerate(records)))
    redrive = Redriver.redrive

    def interrupted(self, letters):
        signal.raise_signal(signal.SIGINT)
        return redrive(self, letters)

    with monkeypatch.context() as patch:
        patch.setattr(Redriver, "redrive", interrupted)
        done = run_json(deployment, "redrive", exit_code=1)
    assert (done["stopped"], done["redriven"], done["left"]) == (True, 500, 600)
    assert run_json(deployment, "redrive")["redriven"] == 600


def on_a_terminal(deployment, *arguments, answer):
    """Run `streamer` on a terminal of its own, give an answer; return its code and what it said."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [STREAMER, *arguments],
        env=os.environ | environment_of(deployment),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    os.close(theirs)
    try:
        os.write(ours, answer)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(ours)
    return process.returncode, said.decode()


@pytest.mark.parametrize(("answer", "n_redriven"), [(b"n\n", 0), (b"y\n", 1)])
def test_on_a_terminal_a_redrive_asks_first(deployment, answer, n_redriven):
    bury(deployment, rejected_of(deployment, sent("play", 1, b"{"), 0, START_MS))
    code, said = on_a_terminal(deployment, "dlq", "redrive", answer=answer)
    assert "Redrive 1 letters?" in said
    assert code == 1 - n_redriven
    assert len(deployment.log()) == n_redriven
    code, said = on_a_terminal(deployment, "dlq", "redrive", "--yes", answer=b"")
    assert "?" not in said
    assert (code, len(deployment.log())) == (0, 1)


def test_on_a_terminal_forgetting_asks_first(deployment):
    code, said = on_a_terminal(deployment, "forget", user(1), answer=b"n\n")
    assert "cannot be undone" in said
    assert (code, deployment.log()) == (1, [])
    options = ("--yes", "--timeout", "0.1")
    code, said = on_a_terminal(deployment, "forget", user(1), *options, answer=b"")
    assert "cannot be undone" not in said
    assert (code, len(deployment.log())) == (75, 1)
