import json

import pytest

from streamer.errors import ModelError
from streamer.factors import FoldInParams, Signals
from streamer.models.manifest import Manifest, ModelNotes, decode_manifest, encode_manifest

REQUIRED = {
    "format": 1,
    "model_id": "0123456789abcdef",
    "n_items": 2,
    "n_factors": 3,
    "alpha": 40,
    "regularization": 0.1,
}


def manifest_of(**changes):
    payload = {
        name: value for name, value in {**REQUIRED, **changes}.items() if value != "LEFT OUT"
    }
    return decode_manifest(json.dumps(payload).encode())


def test_a_manifest_of_the_required_fields_alone_has_defaults_for_the_rest():
    manifest = manifest_of()
    assert manifest.params == FoldInParams(alpha=40.0, regularization=0.1)
    assert manifest.notes == ModelNotes(trained_through=None, created=None, provenance={})


def test_signals_that_are_left_out_have_their_defaults():
    assert manifest_of(signals={"thumb_up": 2}).params.signals == Signals(thumb_up=2.0)


def test_fields_of_a_newer_writer_are_ignored():
    assert manifest_of(shiny="new") == manifest_of()


def test_a_manifest_survives_encoding_and_decoding():
    manifest = Manifest(
        model_id="00000000000000ff",
        n_items=7,
        n_factors=64,
        params=FoldInParams(0.3, 1e-3, 2.0, 0.5, 60.0, Signals(detail_view=0.25)),
        notes=ModelNotes(1_700_000_000_000, "2026-01-01T00:00:00+00:00", {"seed": 7, "ü": [None]}),
    )
    assert decode_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize("name", REQUIRED)
def test_a_manifest_without_a_required_field_is_refused_by_its_name(name):
    with pytest.raises(ModelError, match=f"manifest.json: {name} is"):
        manifest_of(**{name: "LEFT OUT"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format is 2; this version reads 1"),
        ({"format": True}, "format is True"),
        ({"model_id": "0123456789ABCDEF"}, "16 lowercase hexadecimal digits"),
        ({"model_id": "../../etc/passwd"}, "16 lowercase hexadecimal digits"),
        ({"model_id": "0123456789abcdef\n"}, "16 lowercase hexadecimal digits"),
        ({"model_id": 1}, "16 lowercase hexadecimal digits"),
        ({"n_items": 0}, "n_items is 0"),
        ({"n_items": 2.0}, "n_items is 2.0"),
        ({"n_items": 10**12}, "n_items is 1000000000000"),
        ({"n_factors": 1025}, "n_factors is 1025"),
        ({"alpha": "40"}, "alpha is '40'; expected a number"),
        ({"alpha": True}, "alpha is True; expected a number"),
        ({"alpha": 0}, "alpha is 0.0; it must be finite and > 0"),
        ({"regularization": -1}, "regularization is -1.0; it must be finite and > 0"),
        ({"recency_half_life": 0}, "recency_half_life is 0.0"),
        ({"recency_floor": 1.5}, "recency_floor is 1.5"),
        ({"recency_floor": None}, "recency_floor is None; expected a number"),
        ({"blend_half_life_s": -1}, "blend_half_life_s is -1.0"),
        ({"alpha": 1e12}, "alpha is 1000000000000.0 and the greatest strength is 1.5; their"),
        ({"alpha": 1e9}, "may be 1e+09 at most"),
        ({"signals": {"play_least": 1e8}}, "alpha is 40.0 and the greatest strength is 100000000"),
        ({"recency_half_life": 1e-300}, "recency_half_life is 1e-300; at least 1e-06"),
        ({"blend_half_life_s": 1e-7}, "blend_half_life_s is 1e-07; at least 1e-06"),
        ({"format": "x" * 9999}, "format is 'xxxx"),
        ({"alpha": [[[[[[[[]]]]]]]]}, "alpha is [[[[[[[...]]]]]]]; expected a number"),
        ({"signals": {"a\nb": 1}}, "signals: 'a\\nb' is not a signal"),
        ({"signals": []}, "signals is not an object"),
        ({"signals": {"wink": 1}}, "signals: 'wink' is not a signal; known: play_complete, "),
        ({"signals": {"thumb_up": -1}}, "signals.thumb_up is -1.0"),
        ({"signals": {"thumb_up": "1"}}, "signals.thumb_up is '1'; expected a number"),
        ({"trained_through": "yesterday"}, "trained_through is 'yesterday'"),
        ({"trained_through": -1}, "trained_through is -1"),
    ],
)
def test_a_field_that_does_not_fit_refuses_the_manifest(changes, message):
    with pytest.raises(ModelError) as caught:
        manifest_of(**changes)
    assert str(caught.value).startswith("manifest.json: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_the_greatest_weight_that_is_exact_is_taken():
    assert manifest_of(alpha=1e9 / 1.5).params.alpha == 1e9 / 1.5


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b'{"alpha": NaN}', b"[" * 100_000],
    ids=["empty", "cut short", "not UTF-8", "not an object", "NaN", "deep"],
)
def test_a_manifest_that_is_no_json_object_is_refused(content):
    with pytest.raises(ModelError, match=r"manifest\.json: not "):
        decode_manifest(content)
