"""Plain reads, of a standalone Redis and of a cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import TryAgainError

from streamer.stores.client import RedisClient, store_errors, unavailable
from streamer.stores.cluster_client import ClusterClient
from streamer.stores.cluster_exchange import Call
from streamer.stores.keys import VARIANTS, features_key, history_key
from streamer.stores.slots import slot_of

VARIANT_NAME: Final = re.compile(rb"[a-z0-9_-]{1,32}")
WRONG_TYPE: Final = "WRONGTYPE"


def variants_of(client: RedisClient) -> set[str]:
    """Return every variant that was ever published; raises StoreUnavailable."""
    with store_errors():
        members: set[bytes] = client.execute_command("SMEMBERS", VARIANTS)
    return {member.decode() for member in members if VARIANT_NAME.fullmatch(member)}


def read_values(
    client: RedisClient, variant: str, user_ids: Sequence[str]
) -> list[tuple[bytes | None, bytes | None]]:
    """Return (history, features of one variant) of each user; raises StoreUnavailable."""
    keys = [history_key(user_id) for user_id in user_ids]
    keys += [features_key(variant, user_id) for user_id in user_ids]
    values = read_many(client, keys)
    return list(zip(values[: len(user_ids)], values[len(user_ids) :], strict=True))


def read_many(client: RedisClient, keys: Sequence[str]) -> list[bytes | None]:
    """Return the value of each key, None where there is none or no string.

    Args:
        client: From `connect`.
        keys: With the hash tag of a bucket.

    Raises:
        StoreUnavailable: A key's shard did not answer.
    """
    if not keys:
        return []
    with store_errors():
        if isinstance(client, redis.Redis):
            execute: Callable[..., list[bytes | None]] = client.execute_command
            return execute("MGET", *keys)
        return _read_slots(client, keys)


def _read_slots(client: ClusterClient, keys: Sequence[str]) -> list[bytes | None]:
    """Read with one command per slot, all those of a node at once."""
    rows_of_slot: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of_slot.setdefault(slot_of(key), []).append(row)
    calls = [
        Call(slot, ("MGET", *[keys[row] for row in rows])) for slot, rows in rows_of_slot.items()
    ]
    values: list[bytes | None] = [None] * len(keys)
    split: list[int] = []
    for rows, answer in zip(rows_of_slot.values(), client.call_many(calls), strict=True):
        if isinstance(answer, TryAgainError):
            split += rows
            continue
        for row, value in zip(rows, _ensure_read(answer), strict=True):
            values[row] = value
    # The slot is moving, and some of its keys are here, some there: each is somewhere.
    singly = [Call(slot_of(keys[row]), ("GET", keys[row])) for row in split]
    for row, answer in zip(split, client.call_many(singly), strict=True):
        if not (isinstance(answer, redis.ResponseError) and WRONG_TYPE in str(answer)):
            values[row] = _ensure_read(answer)
    return values


def _ensure_read(answer: Any) -> Any:  # noqa: ANN401  each command has its own
    if isinstance(answer, Exception):
        raise unavailable(answer) from answer
    return answer
