"""A bounded cache of histories in NumPy slabs. A stale entry costs a conflict, nothing else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

import numpy as np

from streamer.pipeline.step import Known


class HistoryCache:
    """What the worker last knew of its most recently seen users; the least recent leave."""

    def __init__(self, max_users: int) -> None:
        """Reserve room, about 0.9 kB a user; the system gives the memory as it is used."""
        self._slot_of: OrderedDict[str, int] = OrderedDict()
        self._free = list(range(max_users - 1, -1, -1))
        self._known = Known.nothing(max_users)

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def user_ids(self) -> list[str]:
        """Everybody in the cache, the least recently seen first."""
        return list(self._slot_of)

    def find(self, user_ids: Sequence[str]) -> list[int | None]:
        """Return each user's slot, None for a miss. Valid until the next `put` or `clear`."""
        slots = [self._slot_of.get(user_id) for user_id in user_ids]
        for user_id, slot in zip(user_ids, slots, strict=True):
            if slot is not None:
                self._slot_of.move_to_end(user_id)
        return slots

    def get(self, slots: Sequence[int]) -> Known:
        """Return a copy of what is known in these slots."""
        return self._known.take(np.array(slots, np.intp))

    def put(self, user_ids: Sequence[str], known: Known) -> None:
        """Remember what the store holds for these users; at most the cache's size of them."""
        max_users = len(self._known.digests)
        if len(user_ids) > max_users:
            user_ids, known = user_ids[:max_users], known.take(np.arange(max_users))
        new = sum(user_id not in self._slot_of for user_id in user_ids)
        self._evict(new - len(self._free), keep=user_ids)
        slots = np.array([self._slot(user_id) for user_id in user_ids], np.intp)
        self._known.put(slots, known)

    def drop(self, user_ids: Sequence[str]) -> None:
        """Forget these users."""
        for user_id in user_ids:
            slot = self._slot_of.pop(user_id, None)
            if slot is not None:
                self._free.append(slot)

    def clear(self) -> None:
        """Forget everybody."""
        self.drop(list(self._slot_of))

    def _slot(self, user_id: str) -> int:
        slot = self._slot_of.get(user_id)
        if slot is None:
            slot = self._slot_of[user_id] = self._free.pop()
        self._slot_of.move_to_end(user_id)
        return slot

    def _evict(self, n_users: int, keep: Sequence[str]) -> None:
        if n_users > 0:
            kept = set(keep)
            leaving = (user_id for user_id in self._slot_of if user_id not in kept)
            self.drop(list(islice(leaving, n_users)))
