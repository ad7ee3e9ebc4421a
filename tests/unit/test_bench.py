import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.contenders.sgd import UserVectors, item_vectors, step
from benchmarks.figures import Reading, Sample, percentiles_ms, slope, spread, summarize
from benchmarks.measure import Log, busy
from benchmarks.plot import _values
from benchmarks.processes import CannotRun, Job, Program, worker_environment
from benchmarks.report import tables_of
from benchmarks.rounds import Plan, contender_json, rotated, run_rounds
from benchmarks.stack import Topics
from benchmarks.workload import World, draw, encode_events, stored_histories
from streamer.history import decode
from streamer.pipeline.records import Decoder, Partition, Record

NOW_MS = 1_763_900_000_000
SMALL = World(n_users=100, n_items=50, n_past_events=5_000)


class FakeStack:
    """What a measurement asks of a stack, without servers."""

    world = SMALL
    bootstrap_servers = "nowhere:1"

    def __init__(self, folder):
        self.folder, self.models, self.redis_server = folder, folder / "models", self
        self.url = "redis://nowhere"
        self.resets = []

    def reset_redis(self, *, with_histories):
        self.resets.append(with_histories)


class FakeContender:
    """Did 1,000 events a second at 20 µs each, after a start of 5 CPU seconds."""

    def __init__(self, job):
        self.job = job

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def samples(self):
        return [Sample(100.0 + i, 1000 * i, 5.0 + 0.02 * i) for i in range(11)]

    def about(self):
        return {"version": "fake 1", "settings": {"batch": 7}}


def cannot_start(_):
    raise CannotRun("no such library")


def a_job(folder):
    return Job("nowhere:1", ("a-play", "a-browse"), "g", "redis://nowhere", folder, folder)


def measured(folder, **contenders):
    said = []
    plan = Plan(rounds=2, n_events=10_000, latency_seconds=0)
    log = Log(Topics("log"), plan.n_events, 1.0)
    entries = run_rounds(FakeStack(folder), log, contenders, plan, said.append)
    report = {
        "machine": {"cores": 2},
        "contenders": {n: contender_json(e) for n, e in entries.items()},
    }
    return report, said


def shown(report):
    console = Console(width=200, record=True, file=StringIO())
    for part in tables_of(report):
        console.print(part)
    return console.export_text()


# figures


def test_the_start_is_not_counted():
    starting = [Sample(0.0, 0, 0.0), Sample(9.0, 50, 8.0)]
    steady = [Sample(10.0, 100, 8.1), Sample(11.0, 600, 8.2), Sample(12.0, 1000, 8.28)]
    cpu_us, events_per_second = slope([*starting, *steady])
    assert cpu_us == pytest.approx(200)
    assert events_per_second == pytest.approx(450)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [Sample(1.0, 0, 0.1)] * 3,
        [Sample(1.0, 10, 0.1)],
        [Sample(1.0, 10, 0.1), Sample(2.0, 10, 0.2)],
    ],
)
def test_a_slope_needs_two_samples_with_events_between(samples):
    with pytest.raises(ValueError, match="too few"):
        slope(samples)


def test_time_after_the_end_of_the_log_is_not_counted():
    samples = [Sample(float(i), n, 0.0) for i, n in enumerate([0, 10, 40, 70, 100, 100])]
    assert [sample.events for sample in busy(samples, 100)] == [0, 10, 40, 70]
    few = [samples[0], samples[2], samples[4], samples[5]]
    assert [sample.events for sample in busy(few, 100)] == [0, 40, 100]


def test_percentiles_are_in_milliseconds():
    found = percentiles_ms(np.arange(1, 101) / 1000)
    assert found == pytest.approx({"p50": 50.5, "p99": 99.01})
    with pytest.raises(ValueError, match="no event"):
        percentiles_ms(np.empty(0))


def test_spread_is_least_median_and_greatest():
    assert spread([3.0, 1.0, 20.00004]) == {"min": 1.0, "median": 3.0, "max": 20.0}


def test_a_contender_kept_up_only_if_it_did_in_every_round():
    readings = [
        Reading(1.0, 2.0, {"2000": {"p50": 5.0, "p99": 9.0}}, {"2000": True}),
        Reading(3.0, 4.0, {"2000": {"p50": 7.0, "p99": 11.0}}, {"2000": False}),
        Reading(2.0),
    ]
    summary = summarize(readings)
    assert summary["cpu_us_per_event"] == {"min": 1.0, "median": 2.0, "max": 3.0}
    assert summary["events_per_second"] == {"min": 2.0, "median": 3.0, "max": 4.0}
    assert summary["latency_ms"]["2000"] == {
        "p50": {"min": 5.0, "median": 6.0, "max": 7.0},
        "p99": {"min": 9.0, "median": 10.0, "max": 11.0},
        "kept_up": False,
    }


# rounds and the report


def test_rounds_give_every_contender_its_figures(tmp_path):
    report, _ = measured(tmp_path, floor=FakeContender, streamer=FakeContender)
    figures = report["contenders"]["streamer"]
    assert figures["version"] == "fake 1"
    assert figures["settings"] == {"batch": 7}
    assert figures["cpu_us_per_event"] == {"min": 20.0, "median": 20.0, "max": 20.0}
    assert figures["events_per_second"] == {"min": 1000.0, "median": 1000.0, "max": 1000.0}
    assert figures["latency_ms"] == {}
    assert [set(load) for load in figures["load"]] == [{"catch_up"}] * 2
    assert "error" not in figures


def test_a_contender_that_does_not_start_is_left_out_loudly_and_the_rest_goes_on(tmp_path):
    report, said = measured(tmp_path, absent=cannot_start, floor=FakeContender)
    absent = report["contenders"]["absent"]
    assert absent["error"] == "no such library"
    assert absent["version"] is None
    assert "cpu_us_per_event" not in absent
    assert report["contenders"]["floor"]["cpu_us_per_event"]["median"] == 20.0
    assert said.count("LEFT OUT: absent: no such library") == 1
    assert "absent LEFT OUT" in shown(report)
    assert "absent: LEFT OUT: no such library" in shown(report)


def test_only_streamer_starts_with_histories(tmp_path):
    stack, plan = FakeStack(tmp_path), Plan(rounds=1, n_events=10_000, latency_seconds=0)
    log = Log(Topics("log"), plan.n_events, 1.0)
    contenders = {"streamer": FakeContender, "floor": FakeContender}
    run_rounds(stack, log, contenders, plan, lambda _: None)
    assert stack.resets == [True, False]


def test_no_contender_is_always_first():
    assert [rotated(["a", "b", "c"], by)[0] for by in range(4)] == ["a", "b", "c", "a"]
    assert rotated(["a", "b", "c"], 2) == ["c", "a", "b"]


def a_report():
    def figures(cpu, p99, *, kept_up):
        reading = Reading(cpu, 1e6 / cpu, {"2000": {"p50": 1.0, "p99": p99}}, {"2000": kept_up})
        return {"version": "1", "settings": {}} | summarize([reading])

    contenders = {"streamer": figures(9.0, 250.0, kept_up=False)}
    contenders["floor"] = figures(3.0, 5.0, kept_up=True)
    memory = {"redis_bytes_per_user": 987.5}
    return {"machine": {"cores": 2}, "contenders": contenders, "memory": memory}


def test_the_table_shows_medians_ratios_and_who_fell_behind():
    text = shown(a_report())
    assert "9.0, ×3" in text
    assert "250, ×50" in text
    assert text.count("fell behind") == 1
    assert "redis_bytes_per_user 987.5" in text


def test_a_run_beside_others_is_called_noisy():
    report = a_report()
    assert "NOISY" not in shown(report)
    report["contenders"]["floor"]["load"] = [{"catch_up": [9.5, 9.0]}, {"catch_up": [1.0, 9.0]}]
    assert "NOISY: 1 of 2 measurements began at a load average above 4, up to 9.5" in shown(report)


def test_the_plot_says_who_fell_behind():
    values = _values(a_report()["contenders"], ("latency_ms", "2000", "p99"))
    assert list(values) == ["streamer (fell behind)", "floor"]
    assert values["floor"]["median"] == 5.0
    assert _values(a_report()["contenders"], ("latency_ms", "10000", "p99")) == {}


# contenders as processes


def test_a_program_whose_environment_is_missing_cannot_run(tmp_path):
    with pytest.raises(CannotRun, match="/nowhere/python is not there"):
        Program("quix_sink", (), a_job(tmp_path), Path("/nowhere/python"))


def test_a_program_that_ended_says_why(tmp_path):
    with Program("nothing_of_this_name", (), a_job(tmp_path), Path(sys.executable)) as program:
        program.process.wait(20)
        with pytest.raises(CannotRun, match=r"ended with 1: .*No module named"):
            program.samples()


def test_a_worker_gets_its_own_settings_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMER__REDIS__URL", "redis://production")
    monkeypatch.setenv("STREAMER__WORKER__CACHE_USERS", "7")
    environment = worker_environment(a_job(tmp_path), 1234, {"worker.batch_records": "50"})
    assert environment["STREAMER__REDIS__URL"] == "redis://nowhere"
    assert environment["STREAMER__WORKER__BATCH_RECORDS"] == "50"
    assert "STREAMER__WORKER__CACHE_USERS" not in environment
    assert "STREAMER__METRICS__DELAY_TRACE" not in environment


# the work


def test_events_are_of_some_215_bytes_and_every_one_is_an_interaction():
    events = list(encode_events(draw(World(), 1000, NOW_MS)))
    assert 205 < np.mean([len(event.value) for event in events]) < 225
    partitions = Partition("play", 0), Partition("browse", 0)
    decoded = Decoder().decode(
        [Record(partitions[e.topic], i, NOW_MS, e.key, e.value) for i, e in enumerate(events)]
    )
    assert not decoded.rejected
    assert len(decoded.arrived.rows) == 1000
    assert {topic for topic, _ in decoded.applied} == {"play", "browse"}


def test_the_same_seed_draws_the_same_skewed_events():
    first, again = draw(SMALL, 2000, NOW_MS), draw(SMALL, 2000, NOW_MS)
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    assert (first.users != draw(SMALL, 2000, NOW_MS, stream=1).users).any()
    counts = np.bincount(first.users, minlength=100)
    # 1 / (1 + 1/2 + ... + 1/100) of all events, and half of that.
    assert counts[0] == pytest.approx(2000 / 5.187, rel=0.15)
    assert counts[1] == pytest.approx(1000 / 5.187, rel=0.2)


def test_viewers_start_with_sound_histories_the_busiest_with_full_ones():
    values = stored_histories(SMALL, NOW_MS)
    histories, _, is_broken = decode(list(values.values()))
    assert not is_broken.any()
    assert len(values) == 100
    assert histories.counts[0] > 45
    assert histories.counts[0] > histories.counts[-1] > 0


def test_a_batch_learns_what_single_steps_learn():
    vectors, items = UserVectors("t"), item_vectors()
    vectors.learn(["b"], ["title-00007"])
    written = vectors.learn(["a", "b"], ["title-00003", "title-00004"])
    assert list(written) == ["t:a", "t:b"]
    zeros = np.zeros(64, np.float32)
    expected = {
        "t:a": step(zeros, items[3]),
        "t:b": step(step(zeros, items[7]), items[4]),
    }
    for key, value in written.items():
        np.testing.assert_allclose(np.frombuffer(value, "<f4"), expected[key], atol=1e-6)


def test_vectors_survive_the_growth_of_their_table():
    vectors = UserVectors("t")
    first = vectors.learn(["u-0"], ["title-00001"])["t:u-0"]
    vectors.learn([f"u-{number}" for number in range(1, 3000)], ["title-00002"] * 2999)
    again = vectors.learn(["u-0"], ["title-00001"])["t:u-0"]
    once = np.frombuffer(first, "<f4")
    np.testing.assert_allclose(
        np.frombuffer(again, "<f4"), step(once, item_vectors()[1]), atol=1e-6
    )
