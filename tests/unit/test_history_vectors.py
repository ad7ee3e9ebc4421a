"""The golden vectors of the documentation, held to the package and to the oracle alike."""

import json
from pathlib import Path

import oracle
import pytest

from streamer.events import Kind
from streamer.history import HistoryBatch, decode, digests, encode, item_key, merge, pack_word
from streamer.pipeline.records import Decoder, Partition, Record
from streamer.stores.keys import bucket, features_key, history_key

VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text(encoding="utf-8"))


def test_the_file_has_the_documented_parts():
    assert set(VECTORS) == {"about", *VECTORS["about"]}
    assert set(VECTORS["about"]) == {
        "item_keys",
        "words",
        "histories",
        "buckets",
        "features",
        "fold_ins",
        "imported",
    }


@pytest.mark.parametrize(("item_id", "expected"), VECTORS["item_keys"].items())
def test_item_keys(item_id, expected):
    assert f"{item_key(item_id):016x}" == f"{oracle.item_key(item_id):016x}" == expected


@pytest.mark.parametrize("vector", VECTORS["words"])
def test_words(vector):
    parts = vector["event_time_ms"], vector["value"], vector["kind"]
    assert f"{pack_word(*parts[:2], Kind(parts[2])):016x}" == vector["word"]
    assert f"{oracle.word(*parts):016x}" == vector["word"]


@pytest.mark.parametrize(("user_id", "expected"), VECTORS["buckets"].items())
def test_buckets_and_key_names(user_id, expected):
    assert bucket(user_id) == oracle.bucket(user_id) == expected
    assert history_key(user_id) == oracle.history_key(user_id) == f"st:h:{{{expected}}}:{user_id}"
    key = features_key("default", user_id)
    assert (
        key == oracle.features_key(user_id, "default") == f"st:f:{{{expected}}}:default:{user_id}"
    )


@pytest.mark.parametrize("vector", VECTORS["histories"], ids=lambda vector: vector["user_id"])
def test_histories_from_their_events_to_their_bytes(vector):
    records = [
        Record(
            Partition("play-events", 0),
            offset,
            event["record_timestamp_ms"],
            None,
            json.dumps(event["value"]).encode(),
        )
        for offset, event in enumerate(vector["events"])
    ]
    decoded = Decoder().decode(records)
    assert decoded.user_ids == [vector["user_id"]]
    histories, _ = merge(HistoryBatch.empty(1), decoded.arrived)
    found = digests(histories)
    assert encode(histories, found)[0].hex() == vector["hex"]
    assert f"{found[0]:016x}" == vector["digest"]

    log = [oracle.verdict(record.value, record.timestamp_ms) for record in records]
    state = oracle.replay(log)[vector["user_id"]]
    assert state.to_bytes().hex() == vector["hex"]
    assert f"{state.digest:016x}" == vector["digest"]


@pytest.mark.parametrize("vector", VECTORS["histories"], ids=lambda vector: vector["user_id"])
def test_histories_from_their_bytes(vector):
    value = bytes.fromhex(vector["hex"])
    histories, found, is_broken = decode([value])
    assert not is_broken[0]
    assert f"{found[0]:016x}" == vector["digest"]
    assert encode(histories, found) == [value]


def test_the_documents_own_example_is_pinned_here_too():
    """So that the file and the oracle cannot drift together."""
    golden = VECTORS["histories"][0]
    assert golden["digest"] == "71ef21cc98b47e43"
    assert golden["hex"] == (
        "5348010003000000437eb498cc21ef710000000000000000"
        "ab1d2ac7acdc2baf0602f4e997b69a01"
        "fb4b99a4c81e586901ae00e897b69a01"
        "ab1d2ac7acdc2baf0300a0fd96b69a01"
    )
    assert VECTORS["item_keys"]["title-501"] == "69581ec8a4994bfb"
    assert VECTORS["buckets"]["u-1842"] == "ff"
