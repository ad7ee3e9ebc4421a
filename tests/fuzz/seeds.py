"""Write the seeds of the corpus again: ``python tests/fuzz/seeds.py``, after a format has changed.

Seeds are the valid inputs of each kind. Findings lie beside them, as files whose names say what
once went wrong; they are never written by this file, and never deleted.
"""

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import oracle
import orjson
from fuzz.model_folders import folder_of
from fuzz.readers import sound_values
from fuzz.targets import SOUND
from judges import forge_history
from worlds import NOW_MS, event

from streamer.dev.faults import FAULTS
from streamer.events import MAX_VALUE_BYTES

CORPUS = Path(__file__).with_name("corpus")


def event_seeds():
    for event_type in oracle.TYPES:
        item = None if event_type == "forget" else "title-1"
        yield event_type, event("u-1", item, NOW_MS, event_type)
    for fault in FAULTS:
        value = fault.make("u-1", NOW_MS)
        if len(value) <= MAX_VALUE_BYTES:  # a whole page of x teaches a fuzzer nothing
            yield "fault_" + "".join(c if c.isalnum() else "_" for c in fault.name), value
    yield "rfc_3339", event("u-1", "title-1", "2025-11-23T12:13:20.123999+01:00", "thumb_up")
    yield "at_an_odd_time", b"@9223372036854775807\n" + event("u-1", None, NOW_MS, "forget")
    for name, time_ms in (("latest", oracle.LATEST_MS), ("later_than_the_latest", 1 << 48)):
        yield name, b"@9223372036854775807\n" + event("u-1", "title-1", time_ms)
    yield "without_a_time", b"@-1\n" + event("u-1", "title-1")
    yield "tombstone", b"@%d tombstone\n" % NOW_MS


def record_seeds():
    values = [value for _, value in event_seeds()]
    for number in range(0, len(values), 6):
        yield f"batch_{number:02d}", b"\n--\n".join(values[number : number + 6])


def history_seeds():
    full = oracle.State().learn(
        oracle.Interaction(key, kind, NOW_MS + 7 * key, 0)
        for key in range(1, 40)
        for kind in range(1, 7)
    )
    yield "small", SOUND
    yield "full", full.to_bytes()
    yield "tombstone", oracle.State({}, NOW_MS).to_bytes()
    words = [oracle.word(NOW_MS - age_ms, 0, oracle.DETAIL_VIEW) for age_ms in (0, 1)]
    yield "one_key_twice", forge_history([(7, word) for word in words], 0)
    broken = oracle.word(NOW_MS, 0, 0)
    yield "a_kind_that_is_none", forge_history([(7, broken)], 0)


def features_seeds():
    features, _ = sound_values()
    yield "f16", features
    wide = np.frombuffer(features, "<f2", offset=64).astype("<f4").tobytes()
    yield "f32", features[:3] + b"\1" + features[4:64] + wide
    yield "one_vector", features[:4] + b"\1" + features[5:6] + b"\x10\0" + features[8:]


def read_seeds():
    features, history = sound_values()
    head = len(features).to_bytes(2, "little")
    yield "both", head + features + history
    yield "history_alone", b"\0\0" + history
    yield "features_alone", head + features
    yield "of_another_history", head + features + SOUND
    yield "of_a_broken_history", head + features + SOUND[:-1] + b"?"


def note_seeds():
    yield "pointer", orjson.dumps({"model_id": "0" * 15 + "1", "generation": 1, "previous": None})
    last = {"model_id": "f" * 16, "generation": (1 << 32) - 1, "previous": "0" * 16}
    yield "last_pointer", orjson.dumps(last)
    yield "time", b"%d" % NOW_MS
    yield "mark", b"1842 Hq3VZzZtTq6CYzS0lgpD1w"


def saved(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def model_seeds():
    manifest = {"format": 1, "model_id": "a02f7085cf3b5bd8", "n_items": 2, "n_factors": 2}
    manifest |= {"alpha": 40, "regularization": 0.1}
    factors = np.array([[1, 0.5], [-0.25, 2]], np.float32)
    files = {
        "manifest.json": orjson.dumps(manifest),
        "item_ids.json": '["title-1", "título-2"]'.encode(),
        "item_factors.npy": saved(factors),
        "popularity.npy": saved(np.array([3, 1], np.float32)),
    }
    yield "small", folder_of(files)
    more = {"recency_half_life": 5, "recency_floor": 0.05, "signals": {"thumb_up": 2}}
    more |= {"blend_half_life_s": 60, "trained_through": NOW_MS, "provenance": {"seed": 7}}
    yield "all_fields", folder_of(files | {"manifest.json": orjson.dumps(manifest | more)})
    fortran = saved(np.asfortranarray(factors), version=(2, 0))
    yield "fortran_order_second_format", folder_of(files | {"item_factors.npy": fortran})
    yield "wide_popularity", folder_of(files | {"popularity.npy": saved(np.array([3.0, 1.0]))})
    pickled = saved(np.array([[1, "a"], [2, "b"]], object))
    yield "pickled", folder_of(files | {"item_factors.npy": pickled})
    for link in ("itself", "zeros", "a folder", "a sibling"):
        body = folder_of({name: files[name] for name in files if name != "popularity.npy"})
        yield (
            f"link_to_{link.replace(' ', '_')}",
            body + b"\n== popularity.npy -> %s ==\n" % link.encode(),
        )


SEEDS = {
    "events": event_seeds,
    "records": record_seeds,
    "histories": history_seeds,
    "features": features_seeds,
    "reads": read_seeds,
    "notes": note_seeds,
    "models": model_seeds,
}


def main():
    for target, seeds in SEEDS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (folder / f"seed_{name}").write_bytes(data)


if __name__ == "__main__":
    main()
