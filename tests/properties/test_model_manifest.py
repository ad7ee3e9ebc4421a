"""Manifests of any JSON: read as they say, or refused in one short line that names the field."""

import json

from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from streamer.errors import ModelError
from streamer.models.manifest import decode_manifest, encode_manifest

VALID = {
    "format": 1,
    "model_id": "0123456789abcdef",
    "n_items": 2,
    "n_factors": 3,
    "alpha": 40.0,
    "regularization": 0.1,
    "recency_half_life": 5.0,
    "recency_floor": 0.05,
    "blend_half_life_s": 1800.0,
    "signals": {"thumb_up": 1.5, "play_least": 0.1},
    "trained_through": 1_700_000_000_000,
    "created": "now",
    "provenance": {"seed": 7},
}
numbers = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, -1, 1e-7, 1e9, 1e12, 1 << 32, 10_000_000, 10_000_001, True]),
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=60), inner),
    max_leaves=6,
)
fields = st.one_of(st.sampled_from(list(VALID)), st.text(max_size=9))


def read_or_refused(content):
    """Return the manifest; None if it was refused, as one should be."""
    try:
        return decode_manifest(content)
    except ModelError as error:
        refusal = str(error)
    assert refusal.startswith("manifest.json: ")
    assert len(refusal) < 400
    assert refusal.isprintable()
    return None


@given(st.dictionaries(fields, st.one_of(anything, numbers), max_size=3), st.integers(0, 1200))
@examples(300)
def test_a_manifest_is_read_as_it_says_or_refused_in_one_line(changes, depth):
    deep = json.loads("[" * min(depth, 900) + "]" * min(depth, 900)) if depth > 1 else None
    changed = VALID | changes | ({"provenance": deep} if depth % 2 else {})
    manifest = read_or_refused(json.dumps(changed).encode("utf-8", "surrogatepass"))
    if manifest is None:
        assert changes
        return
    for name in ("n_items", "n_factors", "model_id"):
        assert getattr(manifest, name) == changed[name]
    for name in ("alpha", "regularization", "recency_half_life", "recency_floor"):
        assert getattr(manifest.params, name) == float(changed[name])  # 2**53 + 1 is no float
    assert manifest.params.alpha * manifest.params.signals.table().max() <= 1e9
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.sampled_from(list(VALID)), st.integers(1, 1100))
@examples(60)
def test_no_field_is_nested_too_deep_to_be_refused(name, depth):
    content = json.dumps(VALID | {name: "HERE"}).encode()
    value = b"[" * depth + b"]" * depth
    manifest = read_or_refused(content.replace(b'"HERE"', value))
    may_be_anything = name in {"created", "provenance"}
    assert (manifest is not None) == (may_be_anything and depth < 1024)


@given(st.binary(max_size=300))
@examples(100)
def test_any_bytes_are_a_manifest_or_refused(content):
    assert read_or_refused(content) is None
