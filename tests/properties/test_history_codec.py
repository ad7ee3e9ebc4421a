"""History bytes: round trips, and any bytes at all are a sound history or flagged broken."""

import random
import struct

import numpy as np
import oracle
from hypothesis import given
from hypothesis import strategies as st
from judges import ensure_histories_are_judged_as_by_the_oracle, forge_history
from strategies import drawn_interactions, examples, seeds, states

from streamer.history import (
    ABSENT_DIGEST,
    N_SLOTS,
    decode,
    digests,
    encode,
    event_times_ms,
    kinds,
    values,
)


def mutilate(value, rolls):
    """Return bytes near `value`: cut, flipped, longer, spliced, with another head."""
    value = bytearray(value)
    match rolls.randrange(8):
        case 0:
            del value[rolls.randrange(len(value) + 1) :]
        case 1:
            value[rolls.randrange(len(value))] ^= 1 << rolls.randrange(8)
        case 2:
            value += rolls.randbytes(rolls.choice([1, 15, 16, 17, 900]))
        case 3:
            start = rolls.randrange(len(value))
            value[start : start + 8] = rolls.randbytes(8)
        case 4:
            value[2] = rolls.randrange(256)
        case 5:
            value[4:6] = struct.pack("<H", rolls.choice([0, 1, N_SLOTS, N_SLOTS + 1, 65535]))
        case 6:
            value[16:24] = struct.pack("<Q", rolls.choice([0, oracle.LATEST_MS, oracle.U64]))
        case 7:
            return rolls.randbytes(rolls.choice([0, 1, 23, 24, 40, 904, 905]))
    return bytes(value)


@given(st.lists(st.one_of(st.none(), states()), max_size=5))
@examples(60)
def test_decoding_and_encoding_gives_the_same_bytes_back(users):
    blobs = [state.to_bytes() if state else None for state in users]
    histories, found, is_broken = decode(blobs)
    assert not is_broken.any()
    again = encode(histories, digests(histories))
    for row, state in enumerate(users):
        assert int(found[row]) == (state.digest if state else ABSENT_DIGEST)
        assert histories.counts[row] == (len(state.entries) if state else 0)
        if state:
            assert again[row] == blobs[row]


@given(states())
@examples(40)
def test_columns_show_the_entries_newest_first(state):
    histories, _, _ = decode([state.to_bytes()])
    entries = state.newest_first()
    for column, name in (
        (histories.item_keys, "item_key"),
        (histories.words, "word"),
        (kinds(histories.words), "kind"),
        (values(histories.words), "value"),
        (event_times_ms(histories.words), "event_time_ms"),
    ):
        padding = [0] * (N_SLOTS - len(entries))
        assert column[0].tolist() == [getattr(entry, name) for entry in entries] + padding
    assert int(histories.forgotten_before_ms[0]) == state.forgotten_before_ms


@given(st.lists(st.tuples(states(), seeds), min_size=1, max_size=6))
@examples(200)
def test_mutilated_bytes_are_flagged_and_harm_no_neighbor(victims):
    blobs = []
    for state, seed in victims:
        value = state.to_bytes()
        blobs += [value, mutilate(value, random.Random(seed)), None]
    ensure_histories_are_judged_as_by_the_oracle(blobs)


@given(st.lists(st.binary(max_size=1000), max_size=4))
@examples(40)
def test_any_bytes_can_be_decoded(blobs):
    ensure_histories_are_judged_as_by_the_oracle(blobs)


@given(
    st.lists(drawn_interactions(), max_size=6, unique_by=lambda each: (each.item_key, each.kind)),
    st.sampled_from(["newest first", "as drawn"]),
    st.sampled_from([0, 1, oracle.LATEST_MS]),
)
@examples(150)
def test_a_forged_digest_does_not_make_a_history(interactions, order, forgotten_before_ms):
    """Bytes of another writer: the right digest, but perhaps unsorted or forgotten entries."""
    entries = [(each.item_key, each.word) for each in interactions]
    if order == "newest first":
        entries.sort(key=lambda entry: (entry[1], entry[0]), reverse=True)
    ensure_histories_are_judged_as_by_the_oracle([forge_history(entries, forgotten_before_ms)])


@given(drawn_interactions(), st.integers(1, 1000), st.integers(0, 255))
@examples(20)
def test_one_key_twice_is_broken(entry, older_by_ms, value):
    """A last-writer-wins map holds a key once; twice it would count twice in the fold-in."""
    older = oracle.word(entry.event_time_ms - older_by_ms, value, entry.kind)
    entries = [(entry.item_key, entry.word), (entry.item_key, older)]
    ensure_histories_are_judged_as_by_the_oracle([forge_history(entries, 0)])


@given(seeds, st.integers(1, 60), st.sampled_from(list(oracle.KINDS.values())))
@examples(60)
def test_a_group_beyond_its_capacity_is_broken(seed, n_entries, kind):
    rolls = random.Random(seed)
    words = sorted(rolls.sample(range(1 << 40, 1 << 41), n_entries), reverse=True)
    entries = [(rolls.getrandbits(64), oracle.word(when, 0, kind)) for when in words]
    ensure_histories_are_judged_as_by_the_oracle([forge_history(entries, 0)])


@given(st.integers(0, 255), st.integers(1, 1 << 40))
@examples(40)
def test_a_number_that_is_no_kind_is_broken(kind, event_time_ms):
    ensure_histories_are_judged_as_by_the_oracle(
        [forge_history([(1, oracle.word(event_time_ms, 0, kind))], 0)]
    )


@given(states(), seeds)
@examples(40)
def test_the_digest_tells_any_two_states_apart_and_ignores_the_order(state, seed):
    rolls = random.Random(seed)
    entries = [(entry.item_key, entry.word) for entry in state.newest_first()]
    rolls.shuffle(entries)
    shuffled = forge_history(entries, state.forgotten_before_ms)
    assert shuffled[8:16] == state.to_bytes()[8:16]
    other = oracle.State(dict(state.entries), state.forgotten_before_ms + 1)
    histories, _, _ = decode([state.to_bytes()])
    histories.forgotten_before_ms[:] += np.uint64(1)
    assert int(digests(histories)[0]) == other.digest != state.digest
