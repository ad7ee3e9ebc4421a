from collections import OrderedDict
from random import Random

import numpy as np
import pytest

from streamer.history import ABSENT_DIGEST, HistoryBatch, digests
from streamer.pipeline.step import NO_GENERATION, Known
from streamer.runtime.cache import HistoryCache


def known(*numbers):
    """What is known of users whose one entry is made from a number."""
    histories = HistoryBatch.empty(len(numbers))
    for row, number in enumerate(numbers):
        histories.item_keys[row, 0] = number + 1
        histories.words[row, 0] = (number + 1) << 16 | 1
        histories.counts[row] = 1
    return Known(histories, digests(histories), {"default": np.array(numbers, np.int64)})


def numbers_in(cache, user_ids):
    """What the cache has for each user, as a number; None for a miss."""
    slots = cache.find(user_ids)
    hits = [slot for slot in slots if slot is not None]
    found = iter(cache.get(hits).generations_of("default").tolist())
    return [None if slot is None else next(found) for slot in slots]


def test_an_empty_cache_knows_nobody():
    cache = HistoryCache(3)
    assert len(cache) == 0
    assert cache.find(["ann"]) == [None]


def test_what_was_put_comes_back_whole():
    cache = HistoryCache(3)
    cache.put(["ann", "ben"], known(5, 7))
    slots = cache.find(["ben", "ann", "cleo"])
    assert slots[2] is None
    found = cache.get(slots[:2])
    wanted = known(7, 5)
    assert found.digests.tolist() == wanted.digests.tolist()
    assert found.generations_of("default").tolist() == [7, 5]
    assert np.array_equal(found.histories.words, wanted.histories.words)
    assert np.array_equal(found.histories.item_keys, wanted.histories.item_keys)
    assert found.histories.counts.tolist() == [1, 1]
    assert len(cache) == 2


def test_what_came_out_is_a_copy():
    cache = HistoryCache(3)
    cache.put(["ann"], known(5))
    cache.get(cache.find(["ann"])).generations["default"][0] = 99
    assert numbers_in(cache, ["ann"]) == [5]


def test_a_second_put_overwrites_and_takes_no_more_room():
    cache = HistoryCache(2)
    cache.put(["ann", "ben"], known(1, 2))
    cache.put(["ann"], known(3))
    assert numbers_in(cache, ["ann", "ben"]) == [3, 2]
    assert len(cache) == 2


def test_the_least_recent_users_leave_first_and_a_hit_is_a_use():
    cache = HistoryCache(3)
    cache.put(["ann", "ben", "cleo"], known(1, 2, 3))
    cache.find(["ann"])
    cache.put(["dora"], known(4))
    assert numbers_in(cache, ["ann", "ben", "cleo", "dora"]) == [1, None, 3, 4]


def test_a_batch_never_evicts_its_own_users():
    cache = HistoryCache(3)
    cache.put(["ann", "ben", "cleo"], known(1, 2, 3))
    cache.put(["dora", "ann", "ed"], known(4, 5, 6))
    assert numbers_in(cache, ["dora", "ann", "ed"]) == [4, 5, 6]
    assert numbers_in(cache, ["ben", "cleo"]) == [None, None]


def test_of_a_batch_that_is_larger_than_the_cache_a_part_is_kept_and_nothing_stale():
    cache = HistoryCache(3)
    users = [f"viewer-{number}" for number in range(8)]
    cache.put(users[5:], known(50, 60, 70))
    cache.put(users, known(*range(8)))
    assert len(cache) == 3
    found = numbers_in(cache, users)
    assert [number for number in found if number is not None] == [
        number for number in range(8) if found[number] is not None
    ]


def test_dropped_users_are_gone_and_their_room_is_free():
    cache = HistoryCache(2)
    cache.put(["ann", "ben"], known(1, 2))
    cache.drop(["ann", "nobody"])
    cache.put(["cleo"], known(3))
    assert numbers_in(cache, ["ann", "ben", "cleo"]) == [None, 2, 3]


def test_a_cleared_cache_can_be_filled_again():
    cache = HistoryCache(2)
    cache.put(["ann", "ben"], known(1, 2))
    cache.clear()
    assert len(cache) == 0
    assert numbers_in(cache, ["ann", "ben"]) == [None, None]
    cache.put(["cleo", "dora"], known(3, 4))
    assert numbers_in(cache, ["cleo", "dora"]) == [3, 4]


def test_a_user_may_be_known_to_have_nothing():
    cache = HistoryCache(2)
    cache.put(["ann"], Known.nothing(1))
    found = cache.get(cache.find(["ann"]))
    assert found.digests.tolist() == [ABSENT_DIGEST]
    assert found.generations_of("default").tolist() == [NO_GENERATION]


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_uses_matches_a_plain_ordered_dict(seed):
    random, size = Random(seed), 6
    cache, model = HistoryCache(size), OrderedDict()
    users = [f"viewer-{number}" for number in range(14)]
    for step in range(300):
        chosen = random.sample(users, random.randrange(1, 5))
        use = random.random()
        if use < 0.5:
            cache.put(chosen, known(*range(step, step + len(chosen))))
            for number, user in enumerate(chosen, step):
                model[user] = number
                model.move_to_end(user)
            while len(model) > size:
                model.popitem(last=False)
        elif use < 0.9:
            assert numbers_in(cache, chosen) == [model.get(user) for user in chosen]
            for user in chosen:
                if user in model:
                    model.move_to_end(user)
        elif use < 0.98:
            cache.drop(chosen)
            for user in chosen:
                model.pop(user, None)
        else:
            cache.clear()
            model.clear()
        assert len(cache) == len(model)
