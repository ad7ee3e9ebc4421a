"""`streamer plan`: arithmetic that names its assumptions."""

import json

import pytest
from click.testing import CliRunner

from streamer.cli.plan import command
from streamer.cli.plan_costs import COSTS, Audience, plan_for


def run(*arguments, exit_code=0):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == exit_code, result.output
    return result.output


def run_json(**options):
    asked = {"users": "50M", "events_per_second": "200k"} | options
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    return json.loads(run(*flags, "--json"))


def test_numbers_may_be_written_short():
    asked = run_json(users="50M", events_per_second="200k")["asked"]
    assert (asked["users"], asked["events_per_second"]) == (50_000_000, 200_000)
    assert run_json(users="1_000", events_per_second="1.5k")["asked"]["events_per_second"] == 1500


@pytest.mark.parametrize("bad", ["many", "0", "-1", "5x", "", "1e13", "nan"])
def test_what_is_no_number_is_refused_with_an_example(bad):
    output = run("--users", bad, "--events-per-second", "1k", exit_code=2)
    assert "such as 200k or 50M" in output


def test_work_and_traffic_grow_with_the_rate_and_memory_with_the_viewers():
    one = run_json()["plan"]
    busier, more = run_json(events_per_second="400k")["plan"], run_json(users="100M")["plan"]
    for name in ("worker_cores", "redis_cores", "kafka_bytes_per_second", "redis_bytes_per_second"):
        assert busier[name] == pytest.approx(2 * one[name])
        assert more[name] == one[name]
    assert busier["redis_bytes"] == one["redis_bytes"]
    assert more["redis_bytes"] == pytest.approx(2 * one["redis_bytes"], rel=0.05)


def test_there_are_so_many_workers_that_a_core_is_not_busier_than_asked():
    for utilization in (0.25, 0.5, 1.0):
        plan = plan_for(Audience(users=1, events_per_second=200_000, utilization=utilization))
        assert plan.worker_cores / plan.n_workers <= utilization
        assert plan.worker_cores / max(plan.n_workers - 1, 1) > utilization
        assert plan.n_partitions >= 2 * plan.n_workers


def test_an_event_costs_the_sum_of_its_parts():
    plan = plan_for(Audience(users=1, events_per_second=1_000_000, interactions=10, factors=128))
    misses = 1 - COSTS.cache_hit_share
    folds = 2 * 10 * COSTS.entry_us  # twice the factors
    assert plan.worker_cores == pytest.approx(
        COSTS.event_us + COSTS.user_us + folds + misses * COSTS.miss_us
    )


def test_more_variants_cost_memory_and_work():
    one, three = run_json()["plan"], run_json(variants=3)["plan"]
    assert all(three[name] > one[name] for name in ("redis_bytes", "worker_cores", "redis_cores"))


def test_imported_vectors_cost_memory_alone():
    asked = ("--users", "50M", "--events-per-second", "200k", "--json")
    plain, imported = (json.loads(run(*asked, *flag))["plan"] for flag in ((), ("--imported",)))
    each = (imported["redis_bytes"] - plain["redis_bytes"]) / 50_000_000
    assert 250 < each < 350
    assert {name for name in plain if plain[name] != imported[name]} == {"redis_bytes"}


def test_the_text_names_the_answer_and_what_it_rests_on():
    output = run("--users", "50M", "--events-per-second", "200k")
    plan = plan_for(Audience(users=50_000_000, events_per_second=200_000))
    assert f"{plan.n_workers:,} processes" in output
    assert "bytes a viewer" in output
    assert COSTS.machine in output
