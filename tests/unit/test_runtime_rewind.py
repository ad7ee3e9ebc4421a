import pytest

from streamer.errors import StoreUnavailable
from streamer.pipeline.ports import Mark
from streamer.pipeline.records import Partition
from streamer.runtime.rewind import Lowered, lower_marks
from streamer.stores import MemoryStore

P0, P1, P2 = (Partition("play-events", number) for number in range(3))


class BusyStore(MemoryStore):
    """A worker moves the mark of P0 on between every look and every move, so many times."""

    def __init__(self, n_moves):
        super().__init__()
        self._n_moves = n_moves

    def read_marks(self, partitions):
        marks = super().read_marks(partitions)
        if self._n_moves:
            self._n_moves -= 1
            self.marks[P0] = Mark(self.marks[P0].next_offset + 10, "id")
        return marks


def test_marks_are_lowered_and_keep_their_topic():
    store = MemoryStore()
    store.marks.update({P0: Mark(50, "id"), P1: Mark(20, "id")})
    lowered = lower_marks(store, {P0: 30, P1: 30, P2: 30})
    assert lowered == {P0: Lowered(50, 30), P1: Lowered(20, 20), P2: Lowered(None, None)}
    assert [each.n_records for each in lowered.values()] == [20, 0, 0]
    assert store.marks == {P0: Mark(30, "id"), P1: Mark(20, "id")}


def test_a_dry_run_says_the_same_and_lowers_nothing():
    store = MemoryStore()
    store.marks[P0] = Mark(50, "id")
    assert lower_marks(store, {P0: 30}, is_dry_run=True) == {P0: Lowered(50, 30)}
    assert store.marks == {P0: Mark(50, "id")}


def test_a_mark_that_a_worker_moves_meanwhile_is_lowered_from_where_it_is_then():
    store = BusyStore(3)
    store.marks[P0] = Mark(50, "id")
    assert lower_marks(store, {P0: 30}) == {P0: Lowered(80, 30)}
    assert store.marks[P0] == Mark(30, "id")


def test_marks_that_never_stand_still_are_given_up():
    store = BusyStore(10**9)
    store.marks[P0] = Mark(50, "id")
    with pytest.raises(StoreUnavailable, match="1 marks are moved"):
        lower_marks(store, {P0: 30})
