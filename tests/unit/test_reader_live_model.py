import logging
import shutil

import numpy as np
import pytest

from streamer.errors import ModelError, StoreUnavailable
from streamer.factors import FoldInParams, RecencyFoldIn
from streamer.models import Pointer, write_model
from streamer.reader.live_model import RELOAD_AFTER_SECONDS, ModelFollower


class World:
    """A pointer that can be anything, and a clock."""

    def __init__(self, directory):
        self.directory = directory
        self.pointer = None
        self.now = 0.0
        self.follower = ModelFollower(directory, RecencyFoldIn(), lambda: self.now)

    def read_pointer(self):
        if isinstance(self.pointer, Exception):
            raise self.pointer
        return self.pointer

    def write(self, seed, popularity=(1, 5, 3)):
        folder = self.directory / "new"
        rng = np.random.default_rng(seed)
        model_id = write_model(
            folder,
            params=FoldInParams(alpha=10.0, regularization=1.0),
            item_ids=["a", "b", "c"],
            item_factors=rng.normal(size=(3, 2)).astype(np.float32),
            popularity=np.array(popularity),
        )
        folder.rename(self.directory / model_id)
        return model_id

    def look(self, pointer):
        self.pointer = pointer
        self.follower.look(self.read_pointer)
        served = self.follower.current()
        return served and (f"{served.model.model_id:016x}", served.generation)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_nothing_is_served_before_the_first_publish(world):
    assert world.look(None) is None


def test_the_pointers_model_is_served(world):
    first, second = world.write(1), world.write(2)
    assert world.look(Pointer(first, 1)) == (first, 1)
    assert world.look(Pointer(second, 2, first)) == (second, 2)


def test_a_roll_back_is_followed(world):
    first, second = world.write(1), world.write(2)
    world.look(Pointer(second, 2, first))
    assert world.look(Pointer(first, 3, second)) == (first, 3)


def test_a_pointer_of_a_lower_generation_is_followed_too(world):
    # A Redis that failed over may have forgotten a publish; workers follow its pointer as well.
    first, second = world.write(1), world.write(2)
    world.look(Pointer(second, 2, first))
    assert world.look(Pointer(first, 1)) == (first, 1)


def test_a_new_generation_of_the_same_model_is_not_loaded_again(world):
    first = world.write(1)
    world.look(Pointer(first, 1))
    model = world.follower.current().model
    shutil.rmtree(world.directory / first)
    assert world.look(Pointer(first, 3)) == (first, 3)
    assert world.follower.current().model is model


def test_what_is_wrong_with_redis_or_the_pointer_changes_nothing(world):
    first = world.write(1)
    world.look(Pointer(first, 1))
    for trouble in (StoreUnavailable("gone"), ModelError("no pointer"), None):
        assert world.look(trouble) == (first, 1)


def test_a_model_that_is_not_in_the_directory_is_said_once_and_the_old_one_stays(world, caplog):
    first = world.write(1)
    world.look(Pointer(first, 1))
    for _ in range(20):
        assert world.look(Pointer("00" * 8, 2)) == (first, 1)
        world.now += 1.0
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in warnings] == ["streamer.reader"]
    assert "no such folder" in warnings[0].getMessage()


def test_a_model_that_arrives_later_than_its_pointer_is_found(world):
    first = world.write(1)
    folder, elsewhere = world.directory / first, world.directory / "elsewhere"
    folder.rename(elsewhere)
    assert world.look(Pointer(first, 1)) is None
    elsewhere.rename(folder)
    assert world.look(Pointer(first, 1)) is None
    world.now += RELOAD_AFTER_SECONDS
    assert world.look(Pointer(first, 1)) == (first, 1)


def test_a_folder_of_another_model_than_it_is_named_after_is_refused(world):
    first, second = world.write(1), world.write(2)
    world.look(Pointer(first, 1))
    (world.directory / second).rename(world.directory / ("00" * 8))
    assert world.look(Pointer("00" * 8, 2)) == (first, 1)


def test_a_served_model_knows_its_titles_rows_and_their_popularity(world):
    world.look(Pointer(world.write(1, popularity=(3, 9, 3)), 1))
    served = world.follower.current()
    assert served.rows == {"a": 0, "b": 1, "c": 2}
    assert served.by_popularity.tolist() == [1, 0, 2]
