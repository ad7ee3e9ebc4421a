"""Which users are verified, and which of them at a time: ranges of a hash of the user id.

A sample is the users with the smallest hashes, so it is the same in every run, and a larger one
contains a smaller one. A pass takes the users of one range; where they are more than fit into
memory, the range ends earlier and the rest is left for the next pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np

HASH_END: Final = 1 << 64
KEPT_SHARE: Final = 0.875
"""Of the users that fit; cutting less would cut more often, cutting more takes more passes."""


def user_hash(user_id: str) -> int:
    """Return where a user stands among all: uniform in [0, 2**64), the same for ever."""
    digest = blake2b(user_id.encode(), digest_size=8, person=b"verify").digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True, slots=True)
class Sample:
    """How many users to look at.

    Attributes:
        share: Of all users, more than 0 and at most 1.
        n_users: At most so many; None for all of the share.
    """

    share: float = 1.0
    n_users: int | None = None

    @classmethod
    def parse(cls, text: str) -> Sample:
        """Read ``1%``, ``0.5 %`` or ``5000``; raises ValueError."""
        number = text.strip()
        if number.endswith("%"):
            share = float(number[:-1]) / 100
            if not 0 < share <= 1:
                raise ValueError("a share is more than 0 % and at most 100 %")
            return cls(share=share)
        n_users = int(number)
        if n_users < 1:
            raise ValueError("a number of users is at least 1")
        return cls(n_users=n_users)

    @property
    def is_everybody(self) -> bool:
        """Whether nobody is left out."""
        return self.share >= 1 and self.n_users is None

    @property
    def hash_end(self) -> int:
        """Users with smaller hashes belong to the share."""
        return HASH_END if self.share >= 1 else round(self.share * HASH_END)


EVERYBODY: Final = Sample()


class HashRange:
    """The users of one pass: hashes in [start, end), where `end` comes nearer when it gets full.

    Attributes:
        start: First hash of the range.
        end: First hash after it.
    """

    def __init__(self, start: int, end: int, n_wanted: int | None, max_users: int) -> None:
        """Begin with everybody in [start, end).

        Args:
            start: First hash.
            end: First hash after the range.
            n_wanted: The smallest so many are enough; None for all.
            max_users: So many fit into memory.
        """
        self.start, self.end = start, end
        self._n_wanted = n_wanted
        self._n_fitting = max_users
        self._hash_of_user: dict[str, int] = {}
        self._is_open = True

    def __len__(self) -> int:
        return len(self._hash_of_user)

    @property
    def user_ids(self) -> list[str]:
        """Everybody who was chosen and is still in the range."""
        return list(self._hash_of_user)

    def narrow(self, user_ids: Sequence[str]) -> None:
        """Choose only these users of the range from now on."""
        self._hash_of_user = {u: self._hash_of_user[u] for u in user_ids}
        self._is_open = False

    def choose(self, user_ids: Sequence[str]) -> list[int]:
        """Return the indices of those in the range, and remember them."""
        chosen = []
        for index, user_id in enumerate(user_ids):
            known = self._hash_of_user.get(user_id)
            if known is None:
                if not self._is_open:
                    continue
                place = user_hash(user_id)
                if not self.start <= place < self.end:
                    continue
                self._hash_of_user[user_id] = place
            chosen.append(index)
        return chosen

    def shrink(self, *, at_end: bool = False) -> bool:
        """End the range earlier if it holds too many users; say whether it did.

        Args:
            at_end: Nobody new will come, so keep no more than are wanted.
        """
        wanted = len(self) if self._n_wanted is None else self._n_wanted
        if at_end:
            n_kept, room = wanted, wanted
        else:
            n_kept = min(wanted, max(1, int(KEPT_SHARE * self._n_fitting)))
            room = self._n_fitting if self._n_wanted is None else min(2 * wanted, self._n_fitting)
        if len(self) <= room or len(self) <= n_kept:
            return False
        places = np.fromiter(self._hash_of_user.values(), np.uint64, len(self))
        self.end = int(np.partition(places, n_kept)[n_kept])
        self._hash_of_user = {u: at for u, at in self._hash_of_user.items() if at < self.end}
        return True
