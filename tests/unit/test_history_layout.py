import numpy as np
import oracle
import pytest

from streamer.events import Kind
from streamer.history import CAPACITIES, GROUPS, N_SLOTS, item_key, pack_word
from streamer.history.layout import FORMAT_VERSION, GROUP_OF_KIND, NO_GROUP


def test_groups_and_capacities_are_constants_of_format_version_1():
    assert FORMAT_VERSION == 1
    assert [(set(map(int, kinds)), capacity) for kinds, capacity in GROUPS] == [
        (set(kinds), capacity) for kinds, capacity in oracle.GROUPS
    ]
    assert CAPACITIES.tolist() == [30, 10, 5, 10]
    assert N_SLOTS == oracle.MAX_ENTRIES == 55


def test_every_kind_has_one_group_and_no_other_byte_has():
    grouped = [number for number in range(256) if GROUP_OF_KIND[number] != NO_GROUP]
    assert grouped == sorted(Kind) == [1, 2, 3, 4, 5, 6]


def test_an_item_key_is_blake2b_of_utf_8_read_from_its_low_end():
    assert item_key("title-501") == oracle.item_key("title-501")
    assert item_key("ünï😀") == oracle.item_key("ünï😀")
    assert item_key("a") != item_key("A")


@pytest.mark.parametrize(
    ("event_time_ms", "value", "kind"),
    [(0, 0, Kind.PLAY), (oracle.LATEST_MS, 255, Kind.THUMB), (1_764_000_000_000, 174, Kind.PLAY)],
)
def test_a_word_packs_time_value_and_kind(event_time_ms, value, kind):
    assert pack_word(event_time_ms, value, kind) == oracle.word(event_time_ms, value, int(kind))
    assert pack_word(event_time_ms, value, kind) <= np.iinfo(np.uint64).max


@pytest.mark.parametrize(("event_time_ms", "value"), [(-1, 0), (1 << 48, 0), (0, -1), (0, 256)])
def test_what_has_no_room_in_a_word_is_a_bug(event_time_ms, value):
    with pytest.raises(AssertionError):
        pack_word(event_time_ms, value, Kind.PLAY)


def test_words_are_ordered_by_time_then_value_then_kind():
    words = [
        pack_word(1, 200, Kind.THUMB),
        pack_word(2, 0, Kind.PLAY),
        pack_word(2, 0, Kind.BRIEF_PLAY),
        pack_word(2, 1, Kind.PLAY),
        pack_word(3, 0, Kind.PLAY),
    ]
    assert words == sorted(words)
