"""`start`: from when outcomes count."""

import pytest

from streamer.errors import ConfigError
from streamer.experiments import Counting
from streamer.models.experiment_file import parse_catalog

FILE = """
[layers.page]
salt = "page-1"
parameters = ["row_order"]

[[experiments]]
name = "rows"
layer = "page"
{start}

[[experiments.cells]]
name = "a"
share = 1
slots = ["0-1"]
"""


def start_of(text):
    catalog = parse_catalog(FILE.format(start=text))
    return catalog.experiments[0].start_ms, [each.book for each in Counting(catalog).tables]


@pytest.mark.parametrize("text", ["2026-12-01T06:00:00Z", "2026-12-01T08:00:00+02:00"])
def test_a_start_is_an_instant(text):
    start_ms, (book,) = start_of(f"start = {text}")
    assert start_ms == 1_796_104_800_000
    assert book == ("rows", start_ms)


def test_without_a_start_nothing_is_counted():
    assert start_of("") == (None, [])


@pytest.mark.parametrize(
    "value",
    [
        "2026-12-01T06:00:00",  # of no zone
        "2026-12-01",
        "06:00:00",
        "'2026-12-01T06:00:00Z'",
        "1796104800",
        "2026-12-01T06:00:00.5Z",
        "1999-12-31T23:59:59Z",
    ],
)
def test_another_start_is_refused(value):
    with pytest.raises(ConfigError, match=r"^experiments\.1\.start is "):
        start_of(f"start = {value}")
