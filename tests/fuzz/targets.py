"""What must hold of any bytes at all: one function a boundary, which fails where it does not hold.

`TARGETS` names them. The corpus, seeded mutations (`test_corpus.py`) and the coverage-guided fuzzer
(`run.py`) call the same functions. A target that is guarded by a checksum or an id also tries its
bytes with that put right, or the code behind the guard would never be reached.
"""

import re
import struct

import numpy as np
import oracle
from fuzz.model_folders import load_folder
from fuzz.readers import ours, read_hostile_values
from judges import (
    ensure_event_is_judged_as_by_the_oracle,
    ensure_features_are_judged_as_by_the_oracle,
    ensure_histories_are_judged_as_by_the_oracle,
    ensure_records_are_judged_as_by_the_oracle,
    forge_history,
)
from worlds import NOW_MS, PLAYS, live_model

from streamer.errors import ModelError
from streamer.factors import FeatureDtype, Stamp, UserFactors, decode_features, encode_features
from streamer.history import Interactions, decode
from streamer.models.pointer import Pointer, decode_pointer, encode_pointer, next_pointer
from streamer.pipeline.records import Record
from streamer.pipeline.step import FeatureFormat, Known, plan
from streamer.reader.freshness import Freshness
from streamer.reader.read import Status
from streamer.stores.marks import decode_mark, encode_mark

BETWEEN_RECORDS = b"\n--\n"
ENVELOPE = re.compile(rb"@(-?[0-9]{1,19})( tombstone)?")
I64 = (1 << 63) - 1


def events(data):
    """One record's value, after a line ``@TIMESTAMP`` where it has another one than usual."""
    record = record_from(data)
    ensure_event_is_judged_as_by_the_oracle(record.value, record.timestamp_ms)


def records(data):
    """A batch: records as in `events`, with a line ``--`` between two of them."""
    parts = data.split(BETWEEN_RECORDS)
    ensure_records_are_judged_as_by_the_oracle(
        [record_from(part, offset) for offset, part in enumerate(parts)]
    )


def record_from(text, offset=0):
    head, newline, value = text.partition(b"\n")
    found = ENVELOPE.fullmatch(head)
    if not found or not newline:
        return Record(PLAYS, offset, NOW_MS, None, text)
    timestamp_ms = max(-I64 - 1, min(int(found[1]), I64))
    return Record(PLAYS, offset, timestamp_ms, text, None if found[2] else value)


# --- what Redis holds ----------------------------------------------------------------------------

LIVE = live_model()
ITEMS = oracle.Model(
    dict(zip(LIVE.model.item_keys.tolist(), LIVE.model.item_factors, strict=True)), 10.0, 1.0
)
NEWS = (
    oracle.Interaction(int(LIVE.model.item_keys[0]), oracle.PLAY, NOW_MS, 200),
    oracle.Interaction(int(LIVE.model.item_keys[1]), oracle.THUMB, NOW_MS, 1),
    oracle.Interaction(7, oracle.DETAIL_VIEW, NOW_MS, 0),
)
SOUND = oracle.State().learn(NEWS, NOW_MS - 9).to_bytes()


def histories(data):
    """One user's history; as it is, and with the head that its entries should have."""
    for value in (data, with_right_head(data)):
        ensure_histories_are_judged_as_by_the_oracle([SOUND, value, None, SOUND])
        if oracle.is_sound(value):
            learn_into(value, forgotten_before_ms=0)
            learn_into(value, forgotten_before_ms=NOW_MS)


def with_right_head(data):
    body = data[24:]
    entries = [struct.unpack_from("<QQ", body, at) for at in range(0, len(body) - 15, 16)][:60]
    (forgotten_before_ms,) = struct.unpack("<Q", data[16:24].ljust(8, b"\0"))
    return forge_history(entries, forgotten_before_ms)


def learn_into(value, forgotten_before_ms):
    """Learn on top of a sound history: the bytes and the vector are the oracle's."""
    stored, digests, _ = decode([value])
    arrived = Interactions(
        np.zeros(len(NEWS), np.intp),
        np.array([each.item_key for each in NEWS], np.uint64),
        np.array([each.word for each in NEWS], np.uint64),
        np.array([forgotten_before_ms], np.uint64),
    )
    known = Known(stored, digests, {})
    step = plan(["u-1"], known, arrived, [LIVE], FeatureFormat(FeatureDtype.F32, NOW_MS))
    state = oracle.read_history(value).learn(NEWS, forgotten_before_ms)
    [history] = step.writes.histories
    assert history in ({state.to_bytes()} if digests[0] != state.digest else {b""})
    [features] = step.writes.features["default"]
    if not state.entries:
        assert features == b""
        return
    read, solved = decode_features(features), oracle.fold_in(state, ITEMS)
    assert (read.history_digest, read.n_solved) == (state.digest, solved.n_solved)
    assert read.as_of_ms == state.newest_first()[0].event_time_ms
    np.testing.assert_allclose(read.vectors[0], solved.vector, rtol=1e-4, atol=1e-5)


def features(data):
    """One user's features; as they are, and with magic, version and a size that fits."""
    for value in (data, with_right_size(data)):
        found = ensure_features_are_judged_as_by_the_oracle(value)
        if found is not None:
            again = encoded_again(found, FeatureDtype(value[3]))
            assert again[:5] + again[6:52] + again[64:] == value[:5] + value[6:52] + value[64:]


def with_right_size(data):
    head = bytearray(data[:64].ljust(64, b"\0"))
    head[:3] = b"SF\1"
    width = 4 if head[3] % 2 else 2
    head[3] = 1 if width == 4 else 2
    head[4] = n_vectors = head[4] % 3 + 1
    n_factors = max(1, len(data[64:]) // (width * n_vectors))
    head[6:8] = struct.pack("<H", n_factors % 65_536)
    return bytes(head) + data[64:].ljust(64, b"\0")[: width * n_vectors * n_factors]


def encoded_again(found, dtype):
    factors = UserFactors(
        found.vectors[None], np.array([found.n_solved], np.int64), np.zeros(1, bool)
    )
    stamp = Stamp(found.model_id, found.generation, found.learner_id, dtype, found.written_ms)
    [value], [is_rejected] = encode_features(
        factors,
        np.array([found.history_digest], np.uint64),
        np.array([found.as_of_ms], np.uint64),
        np.array([found.n_interactions], np.int64),
        stamp,
    )
    assert not is_rejected
    return value


def reads(data):
    """A viewer's values as a reader meets them: two bytes that split features from history."""
    size = int.from_bytes(data[:2], "little")
    value, history = data[2 : 2 + size], data[2 + size :]
    for pair in ((value, history), (with_right_size(ours(value)), with_right_head(history))):
        for read, is_of_our_model in read_hostile_values(*pair):
            ensure_read_is_sound(read, is_of_our_model=is_of_our_model)


ERRORS = {
    None,
    "broken_features",
    "broken_history",
    "behind_history",
    "fold_rejected",
    "no_model",
}


def ensure_read_is_sound(read, *, is_of_our_model):
    """A status of the closed set, and vectors of the reader's own model or none."""
    assert read.status in Status
    assert read.error in ERRORS
    assert (read.vectors is None) == (read.status in {Status.COLD, Status.DEGRADED})
    if read.vectors is not None:
        assert np.isfinite(read.vectors).all()
        assert read.vectors.shape[0] == 2
        assert np.isfinite(read.vector(NOW_MS)).all()
        assert not is_of_our_model or read.vectors.shape[1] == read.served.model.n_factors


def notes(data):
    """A small value of Redis: a model's pointer, a partition's freshness, a partition's mark."""
    try:
        pointer = decode_pointer(data)
    except ModelError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert decode_pointer(encode_pointer(pointer)) == pointer
        assert 1 <= pointer.generation < 1 << 32
        for model_id in (pointer.model_id, "0" * 16):
            ensure_pointer_moves_on(pointer, model_id)
    assert len(refusal) < 100
    freshness = Freshness("streamer")
    freshness.take({b"streamer/play-events/0": data})
    age_seconds = freshness.age_seconds(NOW_MS)
    assert age_seconds is None or 0 <= age_seconds < float("inf")
    mark = decode_mark(data)
    if mark is not None:
        assert 0 <= mark.next_offset <= I64, "no offset that a client of Kafka can seek to"
        assert decode_mark(encode_mark(mark).encode()) == mark


def ensure_pointer_moves_on(pointer, model_id):
    try:
        moved = next_pointer(pointer, model_id)
    except ModelError:
        assert pointer.generation == (1 << 32) - 1
    else:
        changed = pointer.model_id != model_id
        expected = Pointer(model_id, pointer.generation + 1, pointer.model_id)
        assert moved == (expected if changed else pointer)


def models(data):
    """A model's folder, its files one after the other: `fuzz.model_folders`."""
    load_folder(data)


TARGETS = {
    each.__name__: each for each in (events, records, histories, features, reads, notes, models)
}
