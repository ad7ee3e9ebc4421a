"""A reader that knows the experiments: each viewer gets the variant of their cell."""

from pathlib import Path

import numpy as np
import pytest
from worlds import NOW_MS, event, item_model, records

from streamer.errors import ConfigError
from streamer.experiments import Assignments, slot_of
from streamer.factors import FeatureDtype, FoldInParams, RecencyFoldIn, load_learner
from streamer.history import decode
from streamer.models import Pointer, load_model, write_model
from streamer.models.experiment_file import load_catalog, parse_catalog
from streamer.pipeline.records import Decoder
from streamer.pipeline.step import FeatureFormat, Known, LiveModel, plan
from streamer.reader import FeatureReader, ReaderSettings, Status
from streamer.stores import MemoryStore
from streamer.stores.keys import features_key, history_key

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "experiments.toml"
VARIANTS = {"default": 5.0, "long-memory": 20.0}  # the half-life of recency
USERS = [f"u-{number}" for number in range(200)]


class FakeSource:
    """What workers of two variants have written."""

    def __init__(self, directory):
        self.values = {}
        self.pointers = {}
        self.live = {}
        for variant, half_life in VARIANTS.items():
            self.live[variant] = publish(directory, variant, half_life)
            self.pointers[variant] = Pointer(f"{self.live[variant].model.model_id:016x}", 1)
            self.values |= learned(self.live[variant])

    def read_values(self, keys):
        return [self.values.get(key) for key in keys]

    def read_fresh(self):
        return {b"streamer/play-events/0": b"%d" % NOW_MS}

    def read_pointer(self, variant):
        return self.pointers.get(variant)

    def close(self):
        """Nothing is open."""


def publish(directory, variant, half_life):
    model = item_model()
    folder = directory / "new"
    model_id = write_model(
        folder,
        params=FoldInParams(alpha=10.0, regularization=1.0, recency_half_life=half_life),
        item_ids=model.item_ids,
        item_factors=model.item_factors,
        popularity=model.popularity,
    )
    folder.rename(directory / model_id)
    return LiveModel(variant, 1, load_model(directory / model_id), RecencyFoldIn())


def now():
    return NOW_MS / 1000


def learned(live):
    store = MemoryStore()
    events = [event(user, f"title-{number}") for user in USERS for number in (3, 9)]
    decoded = Decoder().decode(records(*events))
    histories, digests, _ = decode(store.read_histories(decoded.user_ids))
    known = Known(histories, digests, {})
    feature_format = FeatureFormat(FeatureDtype.F32, NOW_MS)
    store.write(plan(decoded.user_ids, known, decoded.arrived, [live], feature_format).writes)
    return dict(store.values)


@pytest.fixture
def source(tmp_path):
    return FakeSource(tmp_path)


@pytest.fixture
def reader(source, tmp_path):
    settings = ReaderSettings(assignments=Assignments(load_catalog(EXAMPLE)))
    with FeatureReader(source, "default", tmp_path, settings, now, now).start() as reader:
        yield reader


def variant_of(user_id):
    is_long = 2500 <= slot_of(user_id, "taste-2026-11") < 3000
    return "long-memory" if is_long else "default"


def test_each_viewer_gets_the_variant_of_their_cell_in_the_order_of_the_call(reader, source):
    reads = reader.get_many(USERS)
    assert [read.user_id for read in reads] == USERS
    assert {read.status for read in reads} == {Status.FRESH}
    for read in reads:
        assert read.model_id == source.live[variant_of(read.user_id)].model.model_id
    assert len({read.model_id for read in reads}) == 2
    assert reader.model.model_id == source.live["default"].model.model_id


def test_titles_are_ranked_by_the_same_variant_without_what_was_seen(reader, source):
    long = next(user for user in USERS if variant_of(user) == "long-memory")
    for user in (long, reader.get(long)):
        top = reader.top_k(user, 3)
        assert top.model_id == source.live["long-memory"].model.model_id
        assert len(top.item_ids) == 3
        assert not {"title-3", "title-9"} & set(top.item_ids)


def test_a_string_that_no_event_could_carry_is_cold(reader):
    reads = reader.get_many(["\ud800", USERS[0]])
    assert [read.status for read in reads] == [Status.COLD, Status.FRESH]


def with_learner(spec):
    text = EXAMPLE.read_text(encoding="utf-8").replace("model =", f'learner = "{spec}"\nmodel =')
    return ReaderSettings(assignments=Assignments(parse_catalog(text)))


def test_a_variant_whose_learner_cannot_be_loaded_is_refused(source, tmp_path):
    with pytest.raises(ConfigError, match=r"'my.own:One': there is no module my; install its"):
        FeatureReader(source, "default", tmp_path, with_learner("my.own:One"))


def test_each_variant_is_folded_in_by_its_own_learner(source, tmp_path):
    for user in USERS:
        for variant in ("default", "long-memory"):
            del source.values[features_key(variant, user)]
    settings = with_learner("mean_of_items")
    with FeatureReader(source, "default", tmp_path, settings, now, now).start() as reader:
        reads = reader.get_many(USERS)
    for user, read in zip(USERS, reads, strict=True):
        live = source.live[variant_of(user)]
        is_long = variant_of(user) == "long-memory"
        learner = load_learner("mean_of_items" if is_long else "recency_fold_in")
        histories = decode([source.values[history_key(user)]])[0]
        expected = learner(histories, live.model).pairs[0]
        assert read.status is Status.REFOLDED
        np.testing.assert_array_equal(read.vectors, expected)


def test_connect_reads_the_file(tmp_path):
    path = tmp_path / "experiments.toml"
    path.write_text("[layer]", encoding="utf-8")
    with pytest.raises(ConfigError, match="layer is not known here"):
        FeatureReader.connect("redis://127.0.0.1:1/0", experiments=path)
