"""The package beside the oracle: the same bytes to both, and every difference is a failure.

Shared by the property tests, which draw their bytes from strategies, and the fuzz targets, whose
bytes come from a corpus, a seed or a coverage-guided fuzzer.
"""

import struct

import numpy as np
import oracle

from streamer.errors import RejectedRecord
from streamer.events import EventType, RejectReason, decode_event
from streamer.factors import decode_many_features
from streamer.history import ABSENT_DIGEST, decode, digests, encode
from streamer.pipeline.records import Decoder

FEATURE_NUMBERS = (
    "model_id",
    "history_digest",
    "generation",
    "learner_id",
    "as_of_ms",
    "written_ms",
    "n_interactions",
    "n_solved",
)

# --- events --------------------------------------------------------------------------------------


def verdict_of(value, record_time_ms):
    """Return what `decode_event` says: an event, or a reason of the closed set."""
    try:
        return decode_event(value, record_time_ms)
    except RejectedRecord as error:
        rejected = error
    assert str(rejected) == rejected.reason, "something of the value is in the message"
    return RejectReason(rejected.reason)


def ensure_event_is_judged_as_by_the_oracle(value, record_time_ms):
    """Compare one verdict with the oracle's, and with itself: it depends on nothing else."""
    found = verdict_of(value, record_time_ms)
    assert found == verdict_of(value, record_time_ms)
    expected = oracle.verdict(value, record_time_ms)
    if isinstance(found, RejectReason):
        assert expected is None, f"refused as {found}, which the oracle accepts"
        return
    assert expected is not None, f"accepted as {found.type}, which the oracle refuses"
    assert (found.user_id, found.type) == (expected.user_id, expected.type)
    assert oracle.EARLIEST_MS <= found.event_time_ms <= oracle.LATEST_MS
    assert found.event_time_ms <= record_time_ms + oracle.AHEAD_MS
    interaction = expected.interaction
    if interaction is None:
        assert found.evidence is None
        return
    assert found.evidence == (interaction.kind, interaction.value)
    assert found.event_time_ms == interaction.event_time_ms
    assert oracle.item_key(found.item_id) == interaction.item_key
    assert 0 <= found.evidence.value <= 255


def ensure_records_are_judged_as_by_the_oracle(records):
    """Decode a batch, and compare every verdict and all evidence."""
    decoded = Decoder(max_remembered_items=2).decode(records)
    verdicts = [oracle.verdict(record.value, record.timestamp_ms) for record in records]
    refused = [row for row, verdict in enumerate(verdicts) if verdict is None]
    assert [rejected.record for rejected in decoded.rejected] == [records[row] for row in refused]
    assert all(rejected.reason in RejectReason for rejected in decoded.rejected)
    assert [bool(time >= 0) for time in decoded.event_times_ms] == [bool(v) for v in verdicts]

    accepted = [verdict for verdict in verdicts if verdict]
    assert sum(decoded.applied.values()) == len(accepted)
    for event_type in EventType:
        n_applied = sum(
            number for (_, applied), number in decoded.applied.items() if applied is event_type
        )
        assert n_applied == sum(event.type == event_type for event in accepted)
    columns = zip(
        (decoded.user_ids[row] for row in decoded.arrived.rows.tolist()),
        decoded.arrived.item_keys.tolist(),
        decoded.arrived.words.tolist(),
        strict=True,
    )
    assert list(columns) == [
        (event.user_id, event.interaction.item_key, event.interaction.word)
        for event in accepted
        if event.interaction
    ]
    forgotten = dict.fromkeys(decoded.user_ids, 0)
    for event in accepted:
        if event.forgotten_before_ms:
            forgotten[event.user_id] = max(forgotten[event.user_id], event.forgotten_before_ms)
    assert decoded.arrived.forgotten_before_ms.tolist() == list(forgotten.values())
    touched = {
        event.user_id for event in accepted if event.interaction or event.forgotten_before_ms
    }
    assert set(decoded.user_ids) == touched


# --- histories -----------------------------------------------------------------------------------


def forge_history(entries, forgotten_before_ms, count=None):
    """Return well-formed bytes with the right digest, whatever the entries are."""
    digest = sum(oracle.mix(key + oracle.mix(word)) for key, word in entries)
    digest = (digest + oracle.mix(forgotten_before_ms + 1)) & oracle.U64
    count = len(entries) if count is None else count
    header = struct.pack("<2sBBHHQQ", b"SH", 1, 0, count, 0, digest, forgotten_before_ms)
    return header + b"".join(struct.pack("<QQ", *entry) for entry in entries)


def ensure_histories_are_judged_as_by_the_oracle(blobs):
    """Decode values, and compare which are sound; sound ones encode to the same bytes."""
    histories, found, is_broken = decode(blobs)
    again = encode(histories, digests(histories))
    for row, blob in enumerate(blobs):
        if blob is None or not oracle.is_sound(blob):
            assert bool(is_broken[row]) is (blob is not None), blob
            assert found[row] == ABSENT_DIGEST
            assert histories.counts[row] == histories.forgotten_before_ms[row] == 0
            assert not histories.words[row].any()
            assert not histories.item_keys[row].any()
        else:
            assert not is_broken[row], blob
            assert int(found[row]) == oracle.read_history(blob).digest
            assert again[row][:3] + again[row][4:6] == blob[:3] + blob[4:6]
            assert again[row][8:] == blob[8:]


# --- features ------------------------------------------------------------------------------------


def sound_features(value):
    """Return the oracle's reading of a value, None where it is not sound."""
    if len(value) < 64 or value[:3] != b"SF\x01" or value[3] not in oracle.DTYPES:
        return None
    n_numbers = value[4] * struct.unpack_from("<H", value, 6)[0]
    if n_numbers == 0 or len(value) != 64 + n_numbers * np.dtype(oracle.DTYPES[value[3]]).itemsize:
        return None
    tidy = value[:5] + b"\0" + value[6:52] + bytes(12) + value[64:]  # reserved bytes do not count
    features = oracle.read_features(tidy)
    return features if np.isfinite(features.vectors).all() else None


def ensure_features_are_judged_as_by_the_oracle(value):
    """Decode one value, and compare; return what was decoded, or None."""
    expected, [decoded, absent] = sound_features(value), decode_many_features([value, None])
    assert absent is None
    assert (decoded is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(decoded.vectors, np.float32(expected.vectors))
        for name in FEATURE_NUMBERS:
            assert getattr(decoded, name) == getattr(expected, name), name
    return decoded
