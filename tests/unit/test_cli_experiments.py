"""`streamer experiments`: what is wrong, what it costs, and who is in which cell."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamer.cli.experiment_costs import Workload, variant_cost
from streamer.cli.experiments import command
from streamer.cli.plan_costs import COSTS, Audience, plan_for
from streamer.errors import ConfigError
from streamer.experiments import Variant, allocate
from streamer.models.experiment_file import load_catalog

EXAMPLE = str(Path(__file__).parents[2] / "docs" / "examples" / "experiments.toml")


def run(*arguments, exit_code=0, **options):
    result = CliRunner().invoke(command, arguments, **options)
    assert result.exit_code == exit_code, result.output
    return result.output


def test_check_shows_every_cell_and_variant():
    output = run("check", EXAMPLE)
    for word in (
        "memory",
        "control",
        "5.00 %",
        "500 of 2500-4999",
        "variant long-memory",
        "2026-12-01",
    ):
        assert word in output
    cost = variant_cost(Variant("long-memory"), Workload())
    assert f"{cost.redis_bytes_per_user}" in output


def test_a_file_that_is_wrong_is_a_config_error(tmp_path):
    path = tmp_path / "experiments.toml"
    path.write_text("[layer]", encoding="utf-8")
    for verb in (["check"], ["allocate", "--user", "u-1"]):
        result = CliRunner().invoke(command, [*verb, str(path)])
        assert isinstance(result.exception, ConfigError)


def test_a_variant_costs_what_the_plan_says_of_one_more():
    def plan(variants):
        # A power of two of users, so that the hash table grows with the keys.
        return plan_for(Audience(users=1 << 20, events_per_second=10**6, variants=variants))

    cost = variant_cost(Variant("variant1"), Workload())
    one, two, four = plan(1), plan(2), plan(4)
    assert two.worker_cores - one.worker_cores == pytest.approx(cost.worker_us_per_event)
    assert two.redis_cores - one.redis_cores == pytest.approx(cost.redis_us_per_event)
    each = (four.redis_bytes - one.redis_bytes) / 3 / (1 << 20)
    assert each == pytest.approx(cost.redis_bytes_per_user, abs=16)  # the table's doubling


def test_a_learner_with_one_vector_takes_half_the_bytes_of_vectors():
    two = variant_cost(Variant("v"), Workload(factors=512))
    one = variant_cost(Variant("v", "flat_fold_in"), Workload(factors=512))
    assert two.redis_bytes_per_user - one.redis_bytes_per_user == pytest.approx(1024, abs=256)
    assert one.worker_us_per_event == two.worker_us_per_event


def test_the_cost_of_a_learner_of_ones_own_is_not_made_up(tmp_path):
    path = tmp_path / "experiments.toml"
    path.write_text('[variants.mine]\nlearner = "my.module:Learner"\n', encoding="utf-8")
    assert "not measured" in run("check", str(path))
    found = json.loads(run("check", str(path), "--json", "--factors", "128"))["variants"]
    assert found["mine"]["worker_us_per_event"] is None
    assert found["default"]["worker_us_per_event"] == pytest.approx(2 * 20 * COSTS.entry_us)


def test_check_as_json_has_everything_of_the_file():
    found = json.loads(run("check", EXAMPLE, "--json"))
    assert found["layers"]["page"] == {"salt": "page-2026-11", "parameters": ["row_order"]}
    memory = found["experiments"][0]
    assert memory["cells"][1]["slots"] == ["2500-4999"]
    assert memory["cells"][1]["variant"] == "long-memory"


def test_users_are_allocated_as_by_the_package_in_their_order(tmp_path):
    users = [f"u-{number}" for number in range(25_000)]
    path = tmp_path / "users"
    path.write_text("\n".join(users), encoding="utf-8")
    memory = load_catalog(Path(EXAMPLE)).experiments[0]
    output = run("allocate", EXAMPLE, "--users-file", str(path))
    head, *lines = output.splitlines()
    assert head.split("\t") == ["user", "variant", "memory", "rows-2"]
    assert [line.split("\t")[0] for line in lines] == users
    for line in lines[:2000]:
        user_id, variant, found, _ = line.split("\t")
        cell = allocate(user_id, memory)
        assert found == ("-" if cell is None else cell.name)
        assert variant == ("long-memory" if found == "long" else "default")


def test_users_may_come_by_option_and_by_standard_input():
    output = run(
        "allocate", EXAMPLE, "--json", "--user", "u-1", "--users-file", "-", input="u-5\nzoë\n"
    )
    found = json.loads(output)
    assert [each["user_id"] for each in found] == ["u-1", "u-5", "zoë"]
    assert found[0]["cells"] == {"memory": "control", "rows-2": "b"}
    assert json.loads(run("allocate", EXAMPLE, "--json", "--users-file", "-", input="")) == []


def test_what_is_no_user_is_refused_with_its_place():
    assert "name users with --user" in run("allocate", EXAMPLE, exit_code=2)
    output = run("allocate", EXAMPLE, "--users-file", "-", input="u-1\n\n", exit_code=2)
    assert "line 2: not a user id; expected 1 to 128 bytes" in output
    output = run("allocate", EXAMPLE, "--user", "x" * 129, exit_code=2)
    assert "--user: not a user id" in output
