"""A file of experiments: what is read, and what is refused with one line that helps."""

from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.experiments import Assignments, Parameters, SlotRange, Variant, slot_of
from streamer.models.experiment_file import load_catalog, parse_catalog

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "experiments.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
CATALOG = parse_catalog(TEXT)


def test_the_example_is_read_as_it_is_written():
    memory, rows = CATALOG.experiments
    assert (memory.name, memory.layer, memory.salt) == ("memory", "taste", "taste-2026-11")
    control, long = memory.cells
    assert control.parameters == Parameters()
    assert (long.share, long.slots) == (500, (SlotRange(2500, 4999),))
    assert long.parameters == Parameters(variant="long-memory")
    assert rows.cells[0].parameters == Parameters(row_order="editorial")
    assert CATALOG.variants == {
        "default": Variant("default"),
        "long-memory": Variant("long-memory", "recency_fold_in", "half-life-20"),
    }
    assert CATALOG.experiment("rows-2") is rows


def test_an_empty_file_tries_nothing():
    catalog = parse_catalog("")
    assert (catalog.experiments, list(catalog.variants)) == ((), ["default"])
    assert Assignments(catalog).of("u-1").parameters == Parameters("default")
    assert Assignments(catalog, "rows-2").of_many(["u-1"])[0].parameters.variant == "rows-2"


REFUSED = {
    "an unknown name": ("share = 500 ", "shares = 500 ", "cells.1.shares is not known here; known"),
    "an unknown table": ("[layers.taste]", "[tiers.taste]", "tiers is not known here; known: lay"),
    "no share": ("share = 500 ", "", "cells.1.share is missing"),
    "a share in quotes": ("share = 500 ", 'share = "500" ', "cells.1.share is '500': input should"),
    "a share below 0": ("share = 500 ", "share = -1 ", "cells.1.share is '-1': input should be gr"),
    "a share of half": ("share = 500 ", "share = 0.5 ", "cells.1.share is '0.5'"),
    "more than is owned": ("share = 500 ", "share = 2501 ", "share 2501, but it owns 2,500 slots"),
    "slots beyond the last": ("5000-9999", "5000-99999", "slots.1 is '5000-99999'"),
    "slots backwards": ("2500-4999", "4999-2500", "slots 4999-2500; expected FIRST-LAST within"),
    "overlapping slots": (
        "2500-4999",
        "2499-4999",
        "slots 0-2499 of memory/control and 2499-4999 of memory/long overlap",
    ),
    "an unknown layer": ('layer = "page"', 'layer = "pages"', "'pages' is not there; known: taste"),
    "an unknown variant": (
        'variant = "long-memory"',
        'variant = "longer"',
        "variant 'longer' is not there; known: default, long-memory",
    ),
    "an unknown parameter": ('["row_order"]', '["rows"]', "'rows' is not a parameter; known: var"),
    "a parameter of another layer": (
        'variant = "long-memory"',
        'row_order = "taste"',
        "sets row_order, which is not among the parameters of layer 'taste'",
    ),
    "a parameter of two layers": ('["row_order"]', '["variant"]', "set by layer 'taste' already"),
    "two names": ('"rows-2"', '"memory"', "experiment 'memory' is there 2 times"),
    "two cells of a name": ('name = "b"', 'name = "a"', "'rows-2': cell 'a' is there 2 times"),
    "a bad name": ('"rows-2"', '"Rows 2"', "'Rows 2': expected a name of 1 to 32 of a-z"),
    "a bad variant": ("[variants.long-memory]", '[variants."a:b"]', "variant 'a:b': expected"),
    "a bad salt": ('"page-2026-11"', '"a:b"', "salt 'a:b'; expected 1 to 64 of A-Z"),
    "an empty salt": ('"page-2026-11"', '""', "salt ''; expected 1 to 64"),
    "one salt for two layers": ("page-2026-11", "taste-2026-11", "has the salt of layer 'taste'"),
    "two names of a variant": ("half-life-20", "default", "let their cells share one of the names"),
    "a bad learner": ("model =", 'learner = "x"\nmodel =', "long-memory.learner is 'x'"),
    "a half-life of nothing": (
        'variant = "long-memory"',
        "blend_half_life_s = nan",
        "blend_half_life_s is 'nan'",
    ),
    "no TOML": ("[layers.taste]", "[layers.taste", "not TOML"),
}


@pytest.mark.parametrize(("right", "wrong", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_with_one_line(right, wrong, told, tmp_path):
    assert right in TEXT
    path = tmp_path / "experiments.toml"
    path.write_text(TEXT.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_catalog(path)
    assert told in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")


def test_shares_beyond_a_layer_are_refused():
    cells = '\n[[experiments.cells]]\nname = "c"\nshare = 6000\nslots = ["0-9999"]\n'
    with pytest.raises(ConfigError, match="'page': its shares add up to 16,000, of 10,000"):
        parse_catalog(TEXT + cells)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_catalog(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_catalog(tmp_path / "bytes.toml")
    with pytest.raises(ConfigError, match="'none' is not in the catalog; known: memory, rows-2"):
        CATALOG.experiment("none")


def test_a_user_gets_what_the_cells_of_all_layers_set():
    assignments = Assignments(CATALOG)
    users = [f"u-{number}" for number in range(2000)]
    for user_id, found in zip(users, assignments.of_many(users), strict=True):
        taste, page = slot_of(user_id, "taste-2026-11"), slot_of(user_id, "page-2026-11")
        is_long = 2500 <= taste < 3000
        row_order = "editorial" if page < 5000 else "taste"
        variant = "long-memory" if is_long else "default"
        assert found.parameters == Parameters(variant, None, row_order)
        memory = {"memory": "long"} if is_long else {"memory": "control"} if taste < 500 else {}
        assert found.cells == {**memory, "rows-2": "a" if page < 5000 else "b"}
