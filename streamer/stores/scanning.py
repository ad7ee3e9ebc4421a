"""Everybody in Redis, page by page: one part for a standalone one, one for each shard of a cluster.

Cursors of SCAN are stateless, so any worker goes on from where another one stopped; but they mean
something to one process only, and to the keys it has: a server that restarted, or took over, or got
another slot, is another one here, and its sweep begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from zlib import crc32

import redis

from streamer.errors import StoreUnavailable
from streamer.pipeline.ports import Place, UserScan
from streamer.pipeline.sweep import StoredUsers
from streamer.stores.client import RedisClient, store_errors
from streamer.stores.keys import HISTORIES_OF_BUCKET, history_key, sweep_key
from streamer.stores.reading import read_values
from streamer.stores.scripts import load_script

ONLY_PART: Final = ""
"""The name of a standalone Redis."""
HISTORIES: Final = "st:h:*"
_N_PREFIX: Final = len(HISTORIES_OF_BUCKET[0])


class RedisScan(UserScan):
    """Goes through a standalone Redis or a cluster."""

    def __init__(self, client: RedisClient) -> None:
        """Keep `client`, from `connect`; nothing is sent yet."""
        self._client = client
        self._execute: Callable[..., Any] = client.execute_command
        self._claim = load_script("sweep").source

    def parts(self) -> Sequence[str]:
        """Return the names of the primaries, as they are known now."""
        if isinstance(self._client, redis.Redis):
            return [ONLY_PART]
        with store_errors():
            return self._client.primaries()

    def look(self, part: str, variant: str) -> Place:
        """Ask the server who it is, and where the sweep of it stands."""
        with store_errors():
            pipeline: Any = self._node(part).pipeline(transaction=False)
            info, n_keys = pipeline.info("server").dbsize().execute()
            server = str(info["run_id"])
            if not isinstance(self._client, redis.Redis):
                buckets = bytes(self._client.buckets_of(part))
                server += f"-{crc32(buckets):08x}"
            return Place(server, n_keys, self._execute("HGET", sweep_key(variant), server))

    def scan(self, part: str, variant: str, cursor: str, n_keys: int) -> StoredUsers:
        """Scan the keys of one server; values are read wherever they are now."""
        with store_errors():
            execute: Callable[..., Any] = self._node(part).execute_command
            arguments = (cursor, "MATCH", HISTORIES, "COUNT", n_keys)
            after, keys = execute("SCAN", *arguments)
        found = (_user_of(key) for key in keys)
        user_ids = list(dict.fromkeys(user_id for user_id in found if user_id is not None))
        values = read_values(self._client, variant, user_ids)
        histories, features = [value[0] for value in values], [value[1] for value in values]
        return StoredUsers(str(int(after)), user_ids, histories, features)

    def claim(self, variant: str, server: str, expected: bytes | None, wanted: bytes) -> bool:
        """Compare and set in one script call."""
        with store_errors():
            arguments = (server, expected or b"", wanted)
            return bool(self._execute("EVAL", self._claim, 1, sweep_key(variant), *arguments))

    def _node(self, part: str) -> redis.Redis:
        if isinstance(self._client, redis.Redis):
            return self._client
        node = self._client.connection_of(part)
        if node is None:
            raise StoreUnavailable(
                f"Redis: {part} is no primary any more", kind="cluster_unsettled"
            )
        return node


def _user_of(key: bytes) -> str | None:
    """Return the user of a history's key; None if it is no such key."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    user_id = text[_N_PREFIX:]
    return user_id if text == history_key(user_id) else None
