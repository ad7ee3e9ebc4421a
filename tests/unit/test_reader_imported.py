"""Imported vectors in a reader: in place of `lasting`, and never across models."""

import numpy as np
import pytest
from unit.test_reader_client import World, look_again
from worlds import NOW_MS, event, item_model

from streamer.factors import FeatureDtype, ImportStamp, encode_imported
from streamer.history import HistoryBatch, digests, encode
from streamer.reader import Status, blend_many
from streamer.stores.keys import features_key, history_key, imported_key


class ImportedWorld(World):
    def put(self, user_id, vector=None, model=None):
        model = self.live.model if model is None else model
        vector = taste_for(model, "title-7") if vector is None else vector
        stamp = ImportStamp(model.model_id, 0, FeatureDtype.F32, NOW_MS)
        [value] = encode_imported(np.array([vector], np.float32), stamp)
        self.source.store.values[imported_key("default", user_id)] = value
        return np.float32(vector)

    def reader(self, **settings):
        return super().reader(**{"imported_lasting": True, **settings})


@pytest.fixture
def world(tmp_path):
    world = ImportedWorld(tmp_path)
    world.publish(item_model())
    yield world
    for reader in world.threads:
        reader.close()


def taste_for(model, title):
    return model.item_factors[model.item_ids.index(title)]


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_an_imported_vector_takes_the_place_of_lasting_alone(world):
    world.learn(event("u", "title-3"), event("v", "title-3"))
    imported = world.put("u")
    plain = world.reader(imported_lasting=False).get("u")
    read, other = world.reader().get_many(["u", "v"])
    assert (read.status, read.is_imported, read.error) == (Status.FRESH, True, None)
    np.testing.assert_array_equal(read.recent, plain.recent)
    np.testing.assert_array_equal(read.lasting, imported)
    assert not plain.is_imported
    assert not other.is_imported
    np.testing.assert_array_equal(other.vectors, plain.vectors)
    assert not read.vectors.flags.writeable
    day_ms = 86_400_000
    np.testing.assert_allclose(read.vector(NOW_MS + 30 * day_ms), unit(imported), rtol=1e-5)
    half_life_ms = 1_800_000
    blended = 0.5 * unit(plain.recent) + 0.5 * unit(imported)
    np.testing.assert_allclose(read.vector(NOW_MS + half_life_ms), blended, rtol=1e-4, atol=1e-6)


def test_who_does_not_ask_for_them_pays_nothing(world):
    world.learn(event("u", "title-3"))
    world.put("u")
    world.reader(imported_lasting=False).get_many(["u"] * 3)
    assert world.source.n_keys_asked == [3]


def test_they_are_one_more_key_in_the_same_command(world):
    world.learn(event("u", "title-3"))
    reader = world.reader()
    reader.get_many(["u"] * 3)
    reader.get_many(["u"] * 3, check_history=True)
    assert world.source.n_keys_asked == [6, 9]


def test_an_imported_vector_of_another_model_is_never_used(world):
    world.learn(event("u", "title-3"))
    world.put("u", model=item_model(model_id=0xBAD))
    world.put("v", model=item_model(model_id=0xBAD))
    plain = world.reader(imported_lasting=False).get("u")
    read, cold = world.reader().get_many(["u", "v"])
    assert (read.is_imported, read.error, read.status) == (False, None, Status.FRESH)
    np.testing.assert_array_equal(read.vectors, plain.vectors)
    assert (cold.status, cold.vectors, cold.is_imported) == (Status.COLD, None, False)


def test_nor_one_of_another_length(world):
    world.learn(event("u", "title-3"))
    world.put("u", vector=[1.0, 2.0])
    assert not world.reader().get("u").is_imported


def test_with_a_new_model_the_old_models_vectors_are_left_alone(world):
    world.learn(event("u", "title-3"))
    world.put("u")
    reader = world.reader()
    assert reader.get("u").is_imported
    world.publish(item_model(seed=9))
    look_again(reader)
    read = reader.get("u")
    assert (read.status, read.is_imported) == (Status.REFOLDED, False)
    imported = world.put("u")
    read = reader.get("u")
    assert (read.status, read.is_imported) == (Status.REFOLDED, True)
    np.testing.assert_array_equal(read.lasting, imported)


def test_an_imported_vector_serves_who_has_no_history(world):
    imported = world.put("u")
    reader = world.reader()
    read = reader.get("u")
    assert (read.status, read.is_imported, read.as_of_ms) == (Status.FRESH, True, None)
    assert read.model_id == world.live.model.model_id
    np.testing.assert_array_equal(read.recent, imported)
    np.testing.assert_allclose(read.vector(NOW_MS), unit(imported), rtol=1e-6)
    scores = world.live.model.item_factors @ unit(imported)
    best = world.live.model.item_ids[int(np.argmax(scores))]
    assert reader.top_k("u", 1).item_ids == (best,)
    assert reader.top_k("u", 1).status is Status.FRESH


def test_and_who_has_one_without_any_title_that_the_model_knows(world):
    world.learn(event("u", "not-in-the-model"))
    imported = world.put("u")
    read = world.reader().get("u")
    assert (read.status, read.as_of_ms) == (Status.FRESH, NOW_MS)
    np.testing.assert_array_equal(read.vectors, [imported, imported])


def test_it_is_as_stale_as_the_deployment(world):
    world.put("u")
    world.now_ms += 60_000
    assert world.reader().get("u").status is Status.STALE


def test_what_is_wrong_with_a_viewers_events_is_still_told(world):
    world.learn(event("u", "title-3"))
    world.put("u")
    world.source.store.values[history_key("u")] = b"SH\2 of next year"
    world.break_features("u")
    read = world.reader().get("u")
    assert (read.status, read.error, read.is_imported) == (Status.STALE, "broken_history", True)


def test_a_broken_one_is_told_and_harms_nothing(world):
    world.learn(event("u", "title-3"))
    for user in ("u", "v"):
        world.source.store.values[imported_key("default", user)] = b"SU\2 of next year"
    read, cold = world.reader().get_many(["u", "v"])
    assert (read.status, read.error) == (Status.FRESH, "broken_imported")
    assert read.lasting is not None
    assert (cold.status, cold.error) == (Status.COLD, "broken_imported")


def test_without_a_model_it_must_be_of_the_features_own(world):
    world.learn(event("u", "title-3"), event("w", "title-3"))
    imported = world.put("u")
    world.put("v")
    world.put("w", model=item_model(model_id=0xBAD))
    read, cold, other = world.reader(with_models=False).get_many(["u", "v", "w"])
    assert read.is_imported
    np.testing.assert_array_equal(read.lasting, imported)
    assert (cold.status, cold.is_imported) == (Status.COLD, False)
    assert not other.is_imported


def test_a_redis_that_is_away_serves_none(world):
    world.put("u")
    reader = world.reader()
    world.source.trouble = "timeout"
    assert reader.get("u").status is Status.DEGRADED
    assert not reader.get("u").is_imported


def test_nor_one_that_goes_away_between_two_commands(world):
    world.put("u")
    reader = world.reader()
    world.source.n_answers_left = 1
    read = reader.get("u")
    assert (read.status, read.vectors, read.is_imported) == (Status.DEGRADED, None, False)


def test_a_forgotten_viewers_features_are_not_served_beside_one(world):
    """Who was forgotten has no imported vector; one that came later is no more than that."""
    world.learn(event("u", "title-3"))
    nobody = HistoryBatch.empty(1)
    nobody.forgotten_before_ms[0] = NOW_MS
    [tombstone] = encode(nobody, digests(nobody))
    world.source.store.values[history_key("u")] = tombstone
    imported = world.put("u")
    read = world.reader().get("u", check_history=True)
    np.testing.assert_array_equal(read.vectors, [imported, imported])
    assert features_key("default", "u") in world.source.store.values


def test_imported_vectors_are_blended_in_bulk_as_one_by_one(world):
    world.learn(event("u", "title-3"))
    world.put("u")
    world.put("v")
    reads = world.reader().get_many(["u", "v", "w"])
    together = blend_many(reads, NOW_MS + 60_000)
    for read, vector in zip(reads, together, strict=True):
        np.testing.assert_array_equal(read.vector(NOW_MS + 60_000), vector)
    assert together[2] is None
