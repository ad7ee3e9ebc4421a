"""Everybody in a `MemoryState`, page by page: one part, bucket by bucket."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import orjson

from streamer.pipeline.ports import Place, UserScan
from streamer.pipeline.sweep import CURSOR_OF_ENDS, StoredUsers
from streamer.stores.keys import HISTORIES_OF_BUCKET, features_key
from streamer.stores.memory import MemoryState

_N_PREFIX = len(HISTORIES_OF_BUCKET[0])


class MemoryScan(UserScan):
    """Goes through one state. A cursor is the last key that was seen."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def parts(self) -> Sequence[str]:
        """Return the only one."""
        return [""]

    def look(self, part: str, variant: str) -> Place:  # noqa: ARG002  there is one part
        """Return the state of the present life: one that forgot is another server."""
        server = self._state.server
        return Place(server, len(self._state.values), self.state_of(variant, server))

    def state_of(self, variant: str, server: str) -> bytes | None:
        """Return what was claimed last."""
        return self._state.sweeps.get(variant, {}).get(server)

    def scan(self, part: str, variant: str, cursor: str, n_keys: int) -> StoredUsers:  # noqa: ARG002
        """Return the histories among the next keys."""
        keys = sorted(self._state.values, key=_order)
        start = 0 if cursor == CURSOR_OF_ENDS else bisect_right(keys, _order(cursor), key=_order)
        page = keys[start : start + n_keys]
        after = page[-1] if start + n_keys < len(keys) else CURSOR_OF_ENDS
        user_ids = [key[_N_PREFIX:] for key in page if key.startswith("st:h:")]
        values = self._state.values
        return StoredUsers(
            after,
            user_ids,
            [values[key] for key in page if key.startswith("st:h:")],
            [values.get(features_key(variant, user_id)) for user_id in user_ids],
        )

    def claim(self, variant: str, server: str, expected: bytes | None, wanted: bytes) -> bool:
        """Compare and set."""
        states = self._state.sweeps.setdefault(variant, {})
        if states.get(server) != expected:
            return False
        states[server] = wanted
        generation = orjson.loads(wanted)["generation"]
        for other in [s for s, v in states.items() if orjson.loads(v)["generation"] < generation]:
            del states[other]
        return True


def _order(key: str) -> tuple[str, str]:
    """Histories and features are mixed, as Redis mixes them."""
    return key[len("st:h:") :], key
