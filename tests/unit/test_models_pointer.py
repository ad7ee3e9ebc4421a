import json

import pytest

from streamer.errors import ModelError
from streamer.models.pointer import (
    MAX_GENERATION,
    Pointer,
    decode_pointer,
    encode_pointer,
    next_pointer,
    pointer_key,
)

FIRST, SECOND = "00000000000000aa", "00000000000000bb"


def test_a_pointer_is_the_documented_json():
    assert json.loads(encode_pointer(Pointer(SECOND, 2, FIRST))) == {
        "model_id": SECOND,
        "generation": 2,
        "previous": FIRST,
    }


@pytest.mark.parametrize("pointer", [Pointer(FIRST, 1), Pointer(SECOND, MAX_GENERATION, FIRST)])
def test_a_pointer_survives_encoding_and_decoding(pointer):
    assert decode_pointer(encode_pointer(pointer)) == pointer


def test_fields_of_a_newer_writer_are_ignored():
    value = json.dumps({"model_id": FIRST, "generation": 1, "previous": None, "by": "someone"})
    assert decode_pointer(value) == Pointer(FIRST, 1)


def test_generations_begin_at_one_and_rise_by_one():
    first = next_pointer(None, FIRST)
    second = next_pointer(first, SECOND)
    back = next_pointer(second, FIRST)
    assert [first, second, back] == [
        Pointer(FIRST, 1, None),
        Pointer(SECOND, 2, FIRST),
        Pointer(FIRST, 3, SECOND),
    ]


def test_the_live_model_keeps_its_generation():
    live = Pointer(SECOND, 2, FIRST)
    assert next_pointer(live, SECOND) is live


def test_no_generation_comes_after_the_last_one():
    with pytest.raises(ModelError, match="is the last one"):
        next_pointer(Pointer(FIRST, MAX_GENERATION), SECOND)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"generation": 1, "previous": null}',
        b'{"model_id": "../model", "generation": 1, "previous": null}',
        b'{"model_id": "00000000000000aa", "generation": 0, "previous": null}',
        b'{"model_id": "00000000000000aa", "generation": true, "previous": null}',
        b'{"model_id": "00000000000000aa", "generation": 4294967296, "previous": null}',
        b'{"model_id": "00000000000000aa", "generation": 1, "previous": "x"}',
    ],
)
def test_a_broken_pointer_is_refused(value):
    with pytest.raises(ModelError):
        decode_pointer(value)


@pytest.mark.parametrize("variant", ["", "Default", "a:b", "x" * 33, "{tag}", "a\n"])
def test_a_name_that_no_variant_has_is_refused(variant):
    with pytest.raises(ModelError, match="variant"):
        pointer_key(variant)
