"""What makes a stored value broken, one example each."""

import struct

import numpy as np
import oracle
import pytest

from streamer.history import ABSENT_DIGEST, decode, digests
from streamer.history.codec import MAX_BYTES

T = 1_764_000_000_000
STATE = oracle.State().learn(
    [
        oracle.Interaction(7, oracle.PLAY, T, 200),
        oracle.Interaction(9, oracle.THUMB, T + 1, 2),
        oracle.Interaction(8, oracle.MY_LIST, T - 1, 1),
    ]
)
SOUND = STATE.to_bytes()


def with_bytes(start, new):
    return SOUND[:start] + new + SOUND[start + len(new) :]


def judge(value):
    histories, found, is_broken = decode([value])
    assert histories.counts[0] == (0 if is_broken[0] else value[4])
    return bool(is_broken[0]), int(found[0])


def test_a_sound_value_is_read_with_its_digest():
    assert judge(SOUND) == (False, STATE.digest)


def test_nothing_stored_is_not_broken_and_has_the_absent_digest():
    _, found, is_broken = decode([None, None])
    assert (found.tolist(), is_broken.tolist()) == ([ABSENT_DIGEST] * 2, [False] * 2)
    assert ABSENT_DIGEST == 0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"S",
        SOUND[:23],
        SOUND[:24],
        SOUND[:-1],
        SOUND[:-16],
        SOUND + b"\0",
        SOUND + bytes(16),
        SOUND + bytes(16 * 60),
        with_bytes(0, b"SF"),
        with_bytes(0, b"sh"),
        with_bytes(2, b"\0"),
        with_bytes(2, b"\2"),
        with_bytes(4, b"\2"),
        with_bytes(4, b"\4"),
        with_bytes(5, b"\1"),
        with_bytes(8, b"\0" * 8),
        with_bytes(16, b"\1"),
        with_bytes(24, b"\0" * 8),
        with_bytes(24, SOUND[40:56] + SOUND[24:40]),
    ],
)
def test_a_value_that_is_not_what_a_merge_leaves_is_broken(value):
    assert judge(value) == (True, ABSENT_DIGEST)


def forged(*entries, forgotten_before_ms=0):
    """Bytes of another writer, with the right digest."""
    total = sum(oracle.mix(entry.item_key + oracle.mix(entry.word)) for entry in entries)
    digest = (total + oracle.mix(forgotten_before_ms + 1)) & oracle.U64
    header = struct.pack("<2sBBHHQQ", b"SH", 1, 0, len(entries), 0, digest, forgotten_before_ms)
    return header + b"".join(struct.pack("<QQ", entry.item_key, entry.word) for entry in entries)


@pytest.mark.parametrize(
    ("entries", "forgotten_before_ms", "is_broken"),
    [
        ([(9, oracle.PLAY, T), (7, oracle.PLAY, T)], 0, False),
        ([(7, oracle.PLAY, T), (9, oracle.PLAY, T)], 0, True),  # equal words, keys ascend
        ([(7, oracle.PLAY, T), (9, oracle.PLAY, T + 1)], 0, True),
        ([(7, oracle.PLAY, T), (7, oracle.PLAY, T)], 0, True),  # one key twice
        ([(7, oracle.PLAY, T + 1), (7, oracle.PLAY, T)], 0, True),
        ([(7, oracle.THUMB, T), (7, oracle.PLAY, T)], 0, False),
        ([(0, oracle.BRIEF_PLAY, T), (0, oracle.PLAY, T)], 0, False),
        ([(0, oracle.PLAY, T + 1), (0, oracle.PLAY, T)], 0, True),
        ([(7, oracle.PLAY, T)], T - 1, False),
        ([(7, oracle.PLAY, T)], T, True),  # forgotten, and still there
        ([(7, 7, T)], 0, True),
        ([(7, 0, T)], 0, True),
    ],
)
def test_a_right_digest_does_not_make_a_history(entries, forgotten_before_ms, is_broken):
    interactions = [oracle.Interaction(*entry, 0) for entry in entries]
    value = forged(*interactions, forgotten_before_ms=forgotten_before_ms)
    assert judge(value)[0] is is_broken is not oracle.is_sound(value)


@pytest.mark.parametrize("start", [3, 6, 7])
def test_reserved_bytes_may_be_anything(start):
    assert judge(with_bytes(start, b"\xff")) == (False, STATE.digest)


def test_a_tombstone_is_a_bare_header():
    value = oracle.State({}, T).to_bytes()
    assert len(value) == 24
    assert judge(value) == (False, oracle.mix(T + 1))


def test_a_full_history_is_904_bytes():
    many = [
        oracle.Interaction(item, kinds[0], T + item, 0)
        for kinds, capacity in oracle.GROUPS
        for item in range(1, capacity + 1)
    ]
    value = oracle.State().learn(many).to_bytes()
    assert len(value) == MAX_BYTES == 24 + 55 * 16
    assert judge(value)[0] is False


def test_a_broken_value_harms_no_neighbor():
    histories, found, is_broken = decode([SOUND, b"?", None, SOUND[:-1], SOUND])
    assert is_broken.tolist() == [False, True, False, True, False]
    assert found.tolist() == [STATE.digest, 0, 0, 0, STATE.digest]
    assert histories.counts.tolist() == [3, 0, 0, 0, 3]
    assert digests(histories.take(np.array([0, 4]))).tolist() == [STATE.digest] * 2


def test_a_batch_of_nothing_decodes_to_nothing():
    histories, found, is_broken = decode([])
    assert len(histories) == len(found) == len(is_broken) == 0


def test_the_layout_is_as_documented():
    magic, version, reserved, count, reserved2, digest, forgotten = struct.unpack_from(
        "<2sBBHHQQ", SOUND
    )
    assert (magic, version, reserved, count, reserved2) == (b"SH", 1, 0, 3, 0)
    assert (digest, forgotten) == (STATE.digest, 0)
    newest = struct.unpack_from("<QQ", SOUND, 24)
    assert newest == (9, (T + 1) << 16 | 2 << 8 | 6)
