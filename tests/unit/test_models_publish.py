from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import redis

from streamer.errors import ModelError, StoreUnavailable
from streamer.factors import FoldInParams
from streamer.models import (
    Pointer,
    content_id,
    load_model,
    publish,
    read_pointer,
    roll_back,
    write_model,
)


def write_tiny(folder, seed):
    rng = np.random.default_rng(seed)
    return write_model(
        folder,
        params=FoldInParams(alpha=10.0, regularization=1.0),
        item_ids=["a", "b", "c"],
        item_factors=rng.normal(size=(3, 2)).astype(np.float32),
        popularity=np.ones(3),
    )


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_nothing_is_live_before_the_first_publish(client):
    assert read_pointer(client, "default") is None


def test_each_publish_raises_the_generation_and_remembers_the_model_before(client, tmp_path):
    first, second = write_tiny(tmp_path / "1", 1), write_tiny(tmp_path / "2", 2)
    directory = tmp_path / "models"
    pointers = [publish(client, directory, tmp_path / name, "default") for name in "121"]
    assert pointers == [Pointer(first, 1), Pointer(second, 2, first), Pointer(first, 3, second)]
    assert read_pointer(client, "default") == pointers[-1]


def test_the_published_model_is_in_the_directory_under_its_id(client, tmp_path):
    model_id = write_tiny(tmp_path / "1", 1)
    publish(client, tmp_path / "models", tmp_path / "1", "default")
    assert content_id(load_model(tmp_path / "models" / model_id)) == model_id
    assert [path.name for path in (tmp_path / "models").iterdir()] == [model_id]


def test_publishing_the_live_model_again_changes_nothing(client, tmp_path):
    write_tiny(tmp_path / "1", 1)
    first = publish(client, tmp_path / "models", tmp_path / "1", "default")
    assert publish(client, tmp_path / "models", tmp_path / "1", "default") == first
    assert first.generation == 1


def test_a_model_in_the_directory_can_be_published_from_there(client, tmp_path):
    model_id = write_tiny(tmp_path / "models" / "new", 1)
    publish(client, tmp_path / "models", tmp_path / "models" / "new", "default")
    again = publish(client, tmp_path / "models", tmp_path / "models" / model_id, "other")
    assert again == Pointer(model_id, 1)


def test_variants_have_generations_of_their_own_and_are_all_remembered(client, tmp_path):
    first, second = write_tiny(tmp_path / "1", 1), write_tiny(tmp_path / "2", 2)
    publish(client, tmp_path / "models", tmp_path / "1", "default")
    assert publish(client, tmp_path / "models", tmp_path / "2", "wide") == Pointer(second, 1)
    assert read_pointer(client, "default") == Pointer(first, 1)
    assert client.smembers("st:variants") == {b"default", b"wide"}


def test_a_variant_is_remembered_before_its_pointer_is_set(client, tmp_path):
    write_tiny(tmp_path / "1", 1)
    client.set("st:model:default", "not a pointer")
    with pytest.raises(ModelError):
        publish(client, tmp_path / "models", tmp_path / "1", "default")
    assert client.sismember("st:variants", "default")


def test_a_bad_model_leaves_the_live_one_alone(client, tmp_path):
    write_tiny(tmp_path / "1", 1)
    live = publish(client, tmp_path / "models", tmp_path / "1", "default")
    write_tiny(tmp_path / "2", 2)
    np.save(tmp_path / "2" / "item_factors.npy", np.full((3, 2), np.nan, np.float32))
    with pytest.raises(ModelError, match=r"2: item_factors\.npy: row 0 is not finite"):
        publish(client, tmp_path / "models", tmp_path / "2", "default")
    assert read_pointer(client, "default") == live
    assert [path.name for path in (tmp_path / "models").iterdir()] == [live.model_id]


def test_another_model_with_the_same_id_is_refused(client, tmp_path):
    model_id = write_tiny(tmp_path / "1", 1)
    live = publish(client, tmp_path / "models", tmp_path / "1", "default")
    write_tiny(tmp_path / "2", 2)
    manifest = tmp_path / "2" / "manifest.json"
    manifest.write_bytes((tmp_path / "1" / "manifest.json").read_bytes())
    with pytest.raises(ModelError, match=f"another model with the id {model_id} is there"):
        publish(client, tmp_path / "models", tmp_path / "2", "default")
    assert read_pointer(client, "default") == live


def test_a_copy_that_was_damaged_is_not_made_live(client, tmp_path):
    model_id = write_tiny(tmp_path / "1", 1)
    publish(client, tmp_path / "models", tmp_path / "1", "default")
    (tmp_path / "models" / model_id / "popularity.npy").write_bytes(b"")
    with pytest.raises(ModelError, match="popularity"):
        publish(client, tmp_path / "models", tmp_path / "1", "other")
    assert read_pointer(client, "other") is None


def test_a_broken_pointer_is_named_and_kept(client, tmp_path):
    write_tiny(tmp_path / "1", 1)
    client.set("st:model:default", "{")
    for attempt in (
        lambda: read_pointer(client, "default"),
        lambda: publish(client, tmp_path / "models", tmp_path / "1", "default"),
    ):
        with pytest.raises(ModelError, match="Redis key st:model:default: not JSON"):
            attempt()
    assert client.get("st:model:default") == b"{"


def test_a_name_that_no_variant_has_is_refused_before_anything_is_copied(client, tmp_path):
    write_tiny(tmp_path / "1", 1)
    with pytest.raises(ModelError, match="variant 'A B'"):
        publish(client, tmp_path / "models", tmp_path / "1", "A B")
    assert not (tmp_path / "models").exists()
    assert client.keys() == []


def test_concurrent_publishes_get_distinct_generations(redis_url, client, tmp_path):
    n_publishers = 6
    ids = [write_tiny(tmp_path / str(seed), seed) for seed in range(n_publishers)]
    start = Barrier(n_publishers)

    def publish_one(seed):
        with redis.Redis.from_url(redis_url) as own_client:
            start.wait()
            return publish(own_client, tmp_path / "models", tmp_path / str(seed), "default")

    with ThreadPoolExecutor(n_publishers) as pool:
        pointers = sorted(pool.map(publish_one, range(n_publishers)), key=lambda p: p.generation)
    assert [pointer.generation for pointer in pointers] == [1, 2, 3, 4, 5, 6]
    # Each one replaced the one before it: no publish was lost.
    assert [pointer.previous for pointer in pointers] == [
        None,
        *(p.model_id for p in pointers[:-1]),
    ]
    assert {pointer.model_id for pointer in pointers} == set(ids)
    assert read_pointer(client, "default") == pointers[-1]


class Overtaken:
    """A client whose first compare-and-set comes after somebody else's publish."""

    def __init__(self, client, publish_other):
        self._client = client
        self._publish_other = publish_other

    def __getattr__(self, name):
        return getattr(self._client, name)

    def execute_command(self, *command):
        if command[0] == "EVAL":
            publish_other, self._publish_other = self._publish_other, lambda: None
            publish_other()
        return self._client.execute_command(*command)


def test_a_publish_that_was_overtaken_takes_the_next_generation(client, tmp_path):
    mine, other = write_tiny(tmp_path / "1", 1), write_tiny(tmp_path / "2", 2)
    overtaken = Overtaken(
        client, lambda: publish(client, tmp_path / "models", tmp_path / "2", "default")
    )
    pointer = publish(overtaken, tmp_path / "models", tmp_path / "1", "default")
    assert pointer == Pointer(mine, 2, other)


def publish_two(client, tmp_path):
    """Return the ids of a model and of the live one after it."""
    ids = [write_tiny(tmp_path / name, int(name)) for name in "12"]
    for name in "12":
        publish(client, tmp_path / "models", tmp_path / name, "default")
    return ids


def test_a_roll_back_raises_the_generation_and_a_second_one_goes_forward(client, tmp_path):
    first, second = publish_two(client, tmp_path)
    assert roll_back(client, tmp_path / "models", "default") == Pointer(first, 3, second)
    assert roll_back(client, tmp_path / "models", "default") == Pointer(second, 4, first)
    assert read_pointer(client, "default") == Pointer(second, 4, first)


def test_without_a_model_before_there_is_no_roll_back(client, tmp_path):
    with pytest.raises(ModelError, match="no live model yet"):
        roll_back(client, tmp_path / "models", "default")
    first = write_tiny(tmp_path / "1", 1)
    live = publish(client, tmp_path / "models", tmp_path / "1", "default")
    with pytest.raises(ModelError, match=f"no model was live before {first}"):
        roll_back(client, tmp_path / "models", "default")
    assert read_pointer(client, "default") == live


def test_a_model_whose_folder_is_gone_or_broken_is_not_rolled_back_to(client, tmp_path):
    first, second = publish_two(client, tmp_path)
    folder = tmp_path / "models" / first
    (folder / "popularity.npy").write_bytes(b"")
    with pytest.raises(ModelError, match="popularity"):
        roll_back(client, tmp_path / "models", "default")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"{first}: the model before is not in the directory"):
        roll_back(client, tmp_path / "models", "default")
    (tmp_path / "models" / second).rename(folder)
    with pytest.raises(ModelError, match=f"its manifest says model_id {second}"):
        roll_back(client, tmp_path / "models", "default")
    assert read_pointer(client, "default") == Pointer(second, 2, first)


def test_of_two_roll_backs_at_the_same_moment_one_is_refused(client, tmp_path):
    first, second = publish_two(client, tmp_path)
    overtaken = Overtaken(client, lambda: roll_back(client, tmp_path / "models", "default"))
    with pytest.raises(ModelError, match="at the same time"):
        roll_back(overtaken, tmp_path / "models", "default")
    assert read_pointer(client, "default") == Pointer(first, 3, second)


def test_a_redis_that_is_away_is_unavailable(tmp_path, unused_redis_url):
    write_tiny(tmp_path / "1", 1)
    with redis.Redis.from_url(unused_redis_url) as client:
        with pytest.raises(StoreUnavailable):
            publish(client, tmp_path / "models", tmp_path / "1", "default")
        with pytest.raises(StoreUnavailable):
            read_pointer(client, "default")


@pytest.fixture
def unused_redis_url(tmp_path):
    return f"unix://{tmp_path}/nobody.sock"
