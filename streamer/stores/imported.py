"""Writing imported vectors: many users a script call, and never one who was forgotten since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis

from streamer.stores.client import RedisClient, store_errors, unavailable
from streamer.stores.cluster_exchange import Call
from streamer.stores.keys import VARIANTS, bucket_number, history_key, imported_key
from streamer.stores.scripts import load_script
from streamer.stores.slots import SLOTS

MAX_USERS_PER_CALL: Final = 125
"""As of a worker's writes: readers wait a millisecond for a call."""


class ImportedVectors:
    """The imported vectors of one variant, in one Redis or a cluster.

    Writing a user again replaces what was there, so a call may be repeated. Every call raises
    StoreUnavailable.
    """

    def __init__(
        self,
        client: RedisClient,
        variant: str,
        *,
        trained_through_ms: int = 0,
        expire_ms: int = 0,
    ) -> None:
        """Keep the parts; nothing is sent yet.

        Args:
            client: From `connect`.
            variant: Whose vectors.
            trained_through_ms: Newest event time that they were trained on, 0 for unknown. Users
                who were forgotten at or after it are left out; all of them where it is unknown.
            expire_ms: Drop a vector so long after it was written; 0 keeps it.
        """
        self._client = client
        self._variant = variant
        self._args = (trained_through_ms, expire_ms)
        self._script = load_script("imported")

    def prepare(self) -> None:
        """Make the variant known, so that forgetting finds its vectors; before any `write`."""
        with store_errors():
            self._client.execute_command("SADD", VARIANTS, self._variant)

    def write(self, user_ids: Sequence[str], values: Sequence[bytes]) -> int:
        """Write each user's value; return how many users were left out because forgotten."""
        rows: dict[int, list[int]] = {}
        is_cluster = not isinstance(self._client, redis.Redis)
        for row, user_id in enumerate(user_ids):
            rows.setdefault(bucket_number(user_id) if is_cluster else 0, []).append(row)
        chunks = [
            (bucket, members[start : start + MAX_USERS_PER_CALL])
            for bucket, members in rows.items()
            for start in range(0, len(members), MAX_USERS_PER_CALL)
        ]
        calls = [
            Call(
                SLOTS[bucket],
                self._command([user_ids[row] for row in members], [values[row] for row in members]),
                self._script,
            )
            for bucket, members in chunks
        ]
        return sum(len(forgotten) for forgotten in self._answers(calls))

    def _command(
        self, user_ids: Sequence[str], values: Sequence[bytes]
    ) -> tuple[str | bytes | int, ...]:
        keys = [history_key(user_id) for user_id in user_ids]
        keys += [imported_key(self._variant, user_id) for user_id in user_ids]
        head = ("EVALSHA", self._script.sha, len(keys))
        return (*head, *keys, len(user_ids), *self._args, *values)

    def _answers(self, calls: Sequence[Call]) -> list[Any]:
        with store_errors():
            if not isinstance(self._client, redis.Redis):
                answers = self._client.call_many(calls)
                for answer in answers:
                    if isinstance(answer, Exception):
                        raise unavailable(answer) from answer
                return answers
            return [self._call(self._client, call) for call in calls]

    def _call(self, client: redis.Redis, call: Call) -> Any:  # noqa: ANN401  rows
        execute: Any = client.execute_command
        try:
            return execute(*call.command)
        except redis.exceptions.NoScriptError:
            return execute("EVAL", self._script.source, *call.command[2:])
