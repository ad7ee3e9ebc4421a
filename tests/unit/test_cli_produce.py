"""`streamer produce`: its file, its summary, its refusals and how it ends."""

from __future__ import annotations

import signal

import orjson
import pytest
from click.testing import CliRunner

from streamer.cli import produce
from streamer.dev.traffic import generate
from streamer.dev.traffic_plan import Disturbances, World, plan_history
from streamer.errors import BrokerUnavailable

SUMMARY = {"produced", "failed", "play", "browse", "late", "duplicates", "malformed", "seconds"}


class FakeSender:
    def __init__(self, n_failing=0):
        self.records, self.n_failing = [], n_failing
        self.n_delivered, self.n_failed, self.first_error = 0, 0, ""

    def send(self, record):
        self.records.append(record)
        return True

    def serve(self, timeout_seconds):
        pass

    def drain(self, timeout_seconds):
        self.n_failed = self.n_failing
        self.n_delivered = len(self.records) - self.n_failing
        self.first_error = "Local: Message timed out" if self.n_failing else ""


@pytest.fixture
def sender(monkeypatch):
    fake = FakeSender()
    monkeypatch.setattr(produce, "connect_sender", lambda target: fake)
    return fake


def run(*arguments: str):
    return CliRunner().invoke(produce.command, [str(argument) for argument in arguments])


def test_a_file_holds_the_events_of_the_seed_one_a_line(tmp_path):
    path = tmp_path / "log.jsonl"
    result = run("--to", path, "--events", 5_000, "--seed", 3, "--users", 900, "--items", 400)
    assert result.exit_code == 0, result.output
    plan = plan_history(
        5_000, world=World(3, 900, 400), disturbances=Disturbances(0.02, 0.02, 0.0, lines_only=True)
    )
    assert path.read_bytes().splitlines() == [record.value for record in generate(plan)]
    assert "produced 5,000 events" in result.stdout
    assert "0 malformed" in result.stdout


def test_the_same_options_write_the_same_file(tmp_path):
    for name in ("one", "two"):
        assert run("--to", tmp_path / name, "--events", 2_000).exit_code == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_malformed_lines_are_written_only_when_asked_for(tmp_path):
    path = tmp_path / "log.jsonl"
    result = run("--to", path, "--events", 2_000, "--malformed", 0.05, "--json")
    summary = orjson.loads(result.stdout)
    assert set(summary) == SUMMARY
    assert 60 <= summary["malformed"] <= 140
    assert path.read_bytes().count(b"\n") == summary["produced"] == 2_000


def test_the_log_covers_its_days_up_to_the_end_time(tmp_path):
    path = tmp_path / "log.jsonl"
    run("--to", path, "--days", 2, "--end-time", "2025-03-01", "--users", 200, "--late", 0)
    dates = [orjson.loads(line)["event_time"] for line in path.read_bytes().splitlines()]
    end_ms = 1_740_787_200_000
    assert end_ms - 2 * 86_400_000 <= min(dates) <= max(dates) <= end_ms
    assert len(dates) == 200 * 42


def test_kafka_gets_as_many_records_as_rate_and_seconds_say(sender):
    result = run("--rate", 20_000, "--seconds", 0.05, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    summary = orjson.loads(result.stdout)
    assert set(summary) == SUMMARY
    assert (
        summary["produced"] == summary["play"] + summary["browse"] == len(sender.records) == 1_000
    )
    assert summary["failed"] == 0


def test_a_failed_delivery_is_reported_and_exits_1(sender):
    sender.n_failing = 2
    result = run("--rate", 100_000, "--events", 500)
    assert result.exit_code == 1
    assert "2 failed: Local: Message timed out" in result.stdout


def test_topics_and_servers_come_from_the_configuration(sender, monkeypatch, tmp_path):
    targets = []
    monkeypatch.setattr(produce, "connect_sender", lambda target: targets.append(target) or sender)
    config = tmp_path / "streamer.toml"
    config.write_text(
        '[kafka]\nbootstrap_servers = "there:1"\nplay_topic = "p"\nbrowse_topic = "b"\n'
        '[kafka.client]\n"client.id" = "me"\n'
    )
    result = run("--config", config, "--events", 1)
    assert result.exit_code == 0, result.output
    (target,) = targets
    assert (target.bootstrap_servers, target.play_topic, target.browse_topic) == (
        "there:1",
        "p",
        "b",
    )
    assert target.client == {"client.id": "me"}


def test_a_broker_that_is_away_is_the_error_that_main_turns_into_exit_69(monkeypatch):
    def refuse(target):
        raise BrokerUnavailable("no Kafka broker answered")

    monkeypatch.setattr(produce, "connect_sender", refuse)
    assert isinstance(run("--events", 1).exception, BrokerUnavailable)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--events", 1, "--seconds", 1), "give one of them"),
        (("--days", 1), "--to FILE"),
        (("--end-time", "2025-03-01"), "--to FILE"),
        (("--late", 1.5), "--late"),
        (("--users", 0), "--users"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    result = run("--to", tmp_path / "absent" / "log.jsonl", "--events", 1)
    assert result.exit_code == 1
    assert "absent" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_production_with_the_summary(sender, monkeypatch, number):
    def serve(timeout_seconds):
        if len(sender.records) > 100:
            signal.raise_signal(number)

    monkeypatch.setattr(sender, "serve", serve)
    before = signal.getsignal(number)
    result = run("--rate", 100_000, "--seconds", 3_600, "--json")
    assert result.exit_code == 0, result.output
    assert 100 < orjson.loads(result.stdout)["produced"] < 100_000
    assert signal.getsignal(number) is before
