"""How much memory keys take, by the sizes that jemalloc has."""

import pytest

from streamer.factors import FeatureDtype
from streamer.stores import footprint


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        *[(1, 8), (8, 8), (9, 16), (24, 32), (48, 48), (49, 64), (128, 128)],
        *[(129, 160), (160, 160), (161, 192), (257, 320), (350, 384), (385, 448)],
        *[(513, 640), (1024, 1024), (1025, 1280), (4097, 5120)],
    ],
)
def test_an_allocation_is_rounded_up_to_a_size_that_jemalloc_has(asked, given):
    assert footprint.allocated(asked) == given


@pytest.mark.parametrize(
    ("n_bytes", "taken"), [(0, 8), (6, 8), (14, 16), (31, 48), (32, 48), (255, 320), (256, 320)]
)
def test_a_string_has_a_header_that_grows_with_it_and_ends_with_a_zero(n_bytes, taken):
    assert footprint.string_bytes(n_bytes) == taken


def test_a_table_has_a_power_of_two_of_places():
    assert footprint.table_bytes(0, expires=False) == 0
    assert footprint.table_bytes(1024, expires=False) == 8 * 1024
    assert footprint.table_bytes(1025, expires=False) == 8 * 2048
    assert footprint.table_bytes(1025, expires=True) == 2 * 8 * 2048


def test_values_have_the_lengths_that_the_codecs_write():
    assert footprint.history_bytes(20) == 24 + 20 * 16
    assert footprint.features_bytes(64, FeatureDtype.F16) == 64 + 2 * 64 * 2
    assert footprint.features_bytes(64, FeatureDtype.F32) == 64 + 2 * 64 * 4
    assert footprint.imported_bytes(64, FeatureDtype.F16) == 32 + 64 * 2


def forecast(n_users=1_000_000, **changes):
    asked = {
        "id_bytes": 8,
        "n_interactions": 20.0,
        "n_factors": 64,
        "dtype": FeatureDtype.F16,
        "n_variants": 1,
        "expires": False,
    }
    return footprint.redis_bytes(n_users, **(asked | changes))


def test_a_user_of_20_interactions_takes_less_than_1000_bytes():
    assert forecast() / 1_000_000 < 1000


def test_whatever_is_added_takes_more():
    changes = {
        "id_bytes": 100,
        "n_interactions": 50.0,
        "n_factors": 128,
        "dtype": FeatureDtype.F32,
        "n_variants": 2,
        "expires": True,
        "has_imported": True,
    }
    for name, value in changes.items():
        assert forecast(**{name: value}) > forecast()
