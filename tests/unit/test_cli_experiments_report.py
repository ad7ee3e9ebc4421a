"""`streamer experiments report`: what people see."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from streamer.cli.experiments_report import NO_START, _page, as_json_object
from streamer.experiments.report import report
from streamer.experiments.sequential import N_BUCKETS
from streamer.models.experiment_file import load_catalog, parse_catalog

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "experiments.toml"


def shown(reports, catalog):
    page = StringIO()
    Console(width=160, file=page).print(_page(reports, catalog))
    return page.getvalue()


def sums(control, long):
    """Return sums in which a user of cell `long` plays a little more."""
    users = {"control/users": control, "long/users": long}
    return [
        users | {"control/plays": 5 * control + bucket % 7, "long/plays": 7 * long + bucket % 5}
        for bucket in range(N_BUCKETS)
    ]


@pytest.fixture
def catalog():
    return load_catalog(EXAMPLE)


def test_cells_stand_side_by_side_with_their_decisions(catalog):
    found = report(catalog.experiments[0], sums(20, 20))
    page = shown([found], catalog)
    for word in ("memory", "2026-12-01 06:00:00 UTC", "against control", "5,120", "better"):
        assert word in page
    assert "no decision yet" in page  # of what nobody has done yet
    assert "not where the shares" not in page


def test_a_mismatch_is_said_before_anything_else(catalog):
    page = shown([report(catalog.experiments[0], sums(20, 26))], catalog)
    assert page.index("not where the shares send them") < page.index("plays a user")


def test_an_experiment_without_a_start_says_what_to_add():
    text = EXAMPLE.read_text().replace("start = 2026-12-01T06:00:00Z", "")
    catalog = parse_catalog(text)
    assert NO_START in shown([catalog.experiments[0]], catalog).replace("\n", " ")
    assert as_json_object(catalog.experiments[0])["error"] == NO_START


def test_machines_get_every_number(catalog):
    found = json.loads(json.dumps(as_json_object(report(catalog.experiments[0], sums(20, 26)))))
    assert found["has_mismatch"] is True
    long = found["cells"][1]
    assert long["sums"]["users"] == 26 * N_BUCKETS
    assert long["outcomes"]["plays_per_user"]["decision"] == "better"
    assert set(long["outcomes"]["plays_per_user"]["difference"]) == {
        *("estimate", "lower", "upper", "standard_error")
    }
