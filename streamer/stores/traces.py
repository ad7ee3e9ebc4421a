"""What Redis holds of one user, for the receipt of a forget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from streamer.history import decode
from streamer.stores.client import RedisClient, store_errors
from streamer.stores.keys import forgettable_keys, history_key
from streamer.stores.reading import variants_of

_LOOK: Final = """
local found = {redis.call('MGET', KEYS[1])[1]}
for key = 2, #KEYS do found[key] = redis.call('EXISTS', KEYS[key]) end
return found
"""
"""Of one moment, and of one slot. A key that holds no string reads as none."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What Redis holds of one user, all seen at one moment.

    Attributes:
        history: The stored value, None where there is none.
        n_entries: Interactions in it; 0 if it is of an unknown form.
        forgotten_before_ms: From its header; 0 if there is none.
        others: Names of the other keys that exist: features, imported vectors, what was set aside.
    """

    history: bytes | None
    n_entries: int
    forgotten_before_ms: int
    others: tuple[str, ...]


def read_traces(client: RedisClient, user_id: str, live_variants: Iterable[str]) -> Traces:
    """Look at every key that may be about a user; raises StoreUnavailable.

    Args:
        client: From `connect`.
        user_id: Who.
        live_variants: Variants beside those that were ever published.
    """
    lost = forgettable_keys(user_id, sorted({*live_variants, *variants_of(client)}))
    keys = [history_key(user_id), *lost]
    with store_errors():
        history, *found = client.execute_command("EVAL", _LOOK, len(keys), *keys)
    others = tuple(key for key, is_there in zip(lost, found, strict=True) if is_there)
    if history is None:
        return Traces(None, 0, 0, others)
    histories, _, _ = decode([history])
    return Traces(history, int(histories.counts[0]), int(histories.forgotten_before_ms[0]), others)
