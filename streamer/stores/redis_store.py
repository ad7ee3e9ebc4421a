"""Histories, features, marks and freshness in one standalone Redis.

A batch goes in script calls of some hundred users, each packed at once, because a command per user
through a pipeline costs several microseconds of Python each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import redis

from streamer.errors import StoreForgot
from streamer.pipeline.ports import Mark, MarkMove, WriteOutcome
from streamer.pipeline.records import Partition
from streamer.pipeline.step import UserWrites
from streamer.stores.client import store_errors
from streamer.stores.keys import (
    FRESH,
    MARKS,
    SEQUENCES,
    history_key,
    partition_field,
    quarantine_key,
)
from streamer.stores.marks import decode_mark, encode_mark
from streamer.stores.reading import variants_of
from streamer.stores.scripts import load_script
from streamer.stores.write_call import RowPacker, joined, outcome_of

MAX_USERS_PER_CALL: Final = 125
"""So that readers wait a millisecond for a call. Calls of 125, 250 and 500 cost the same a user."""
DAY_MS: Final = 86_400_000
DEFAULT_SUMS_DAYS: Final = 90.0


class RedisStore:
    """The feature store on Redis 6.2 or newer. Every call raises StoreUnavailable.

    Every write leaves its number in Redis, in the same script call. A number below the last
    acknowledged one means that Redis failed over or restarted and forgot: StoreForgot.
    """

    def __init__(
        self,
        client: redis.Redis,
        group_id: str,
        *,
        tombstone_days: float,
        expire_after_days: float = 0.0,
        sums_days: float = DEFAULT_SUMS_DAYS,
    ) -> None:
        """Keep `client`; nothing is sent yet.

        Args:
            client: From `connect`.
            group_id: The consumer group whose marks and freshness these are.
            tombstone_days: How long a forgotten user's marker stays.
            expire_after_days: Drop users after this inactivity; 0 keeps them.
            sums_days: How long an experiment's sums stay after the last write to them.
        """
        self._client = client
        self._execute: Callable[..., Any] = client.execute_command
        self._group_id = group_id
        self._tombstone_ms = int(tombstone_days * DAY_MS)
        self._expire_ms = int(expire_after_days * DAY_MS)
        self._sums_ms = int(sums_days * DAY_MS)
        self._sequence_key = SEQUENCES + uuid4().hex
        self._acknowledged = 0
        self._attempted = 0
        self._scripts = {name: _Script(client, name) for name in ("write", "quarantine", "marks")}

    def read_histories(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """Return each user's stored history; a key that holds no string reads as None."""
        if not user_ids:
            return []
        with store_errors():
            values: list[bytes | None] = self._execute("MGET", *map(history_key, user_ids))
        return values

    def write(self, writes: UserWrites) -> WriteOutcome:
        """Compare and set every user, some hundred in an atomic script call.

        A longer call would keep readers waiting, and one that outlasts the time-out would be
        repeated for ever.
        """
        outcomes: list[WriteOutcome] = []
        packer = RowPacker(writes)
        for start in range(0, len(writes.user_ids), MAX_USERS_PER_CALL):
            rows = range(start, min(start + MAX_USERS_PER_CALL, len(writes.user_ids)))
            outcomes.append(self._write_rows(writes, packer, rows))
        return joined(outcomes)

    def _write_rows(self, writes: UserWrites, packer: RowPacker, rows: range) -> WriteOutcome:
        is_any_forgotten = packer.is_any_forgotten(rows)
        all_variants = self._all_variants(tuple(writes.features)) if is_any_forgotten else []
        packed = packer.pack(rows, all_variants)
        self._attempted += 1
        head = (
            self._acknowledged,
            self._attempted,
            len(rows),
            len(writes.features),
            self._tombstone_ms,
            self._expire_ms,
            self._sums_ms,
            packer.generations,
        )
        answer = self._scripts["write"]([self._sequence_key, *packed.keys], [*head, *packed.args])
        answer = self._remembering(answer)
        self._acknowledged = self._attempted
        return outcome_of(answer, rows, packed.n_bytes)

    def quarantine(self, user_id: str, value: bytes | None) -> None:
        """Rename the key if it still holds `value`, or still no string for None."""
        key = history_key(user_id)
        self._scripts["quarantine"](
            [key, quarantine_key(key)], [value or b"", 1 if value is None else 0]
        )

    def move_marks(self, moves: Mapping[Partition, MarkMove]) -> dict[Partition, Mark | None]:
        """Compare and set each mark; return what is stored then."""
        if not moves:
            return {}
        args: list[bytes | int | str] = [self._acknowledged]
        for partition, move in moves.items():
            args.append(partition_field(self._group_id, partition))
            args += (encode_mark(move.expected), encode_mark(move.wanted))
        stored = self._remembering(self._scripts["marks"]([MARKS, self._sequence_key], args))
        return dict(zip(moves, map(decode_mark, stored), strict=True))

    def read_marks(self, partitions: Sequence[Partition]) -> dict[Partition, Mark | None]:
        """Return each partition's mark, None where there is none."""
        if not partitions:
            return {}
        fields = [partition_field(self._group_id, partition) for partition in partitions]
        with store_errors():
            stored = self._execute("HMGET", MARKS, *fields)
        return dict(zip(partitions, map(decode_mark, stored), strict=True))

    def write_fresh(self, fresh_ms: Mapping[Partition, int]) -> None:
        """Publish the time before which everything appended is readable, by partition."""
        if not fresh_ms:
            return
        pairs: list[str | int] = []
        for partition, before_ms in fresh_ms.items():
            pairs += (partition_field(self._group_id, partition), before_ms)
        with store_errors():
            self._execute("HSET", FRESH, *pairs)

    def _remembering(self, answer: Any) -> Any:  # noqa: ANN401  whatever the script returns
        """Return the answer, unless Redis has forgotten one of our acknowledged writes."""
        if answer is None:
            self._acknowledged = 0  # what comes again is counted from here
            raise StoreForgot("Redis has forgotten writes that it had acknowledged")
        return answer

    def _all_variants(self, live: Sequence[str]) -> list[str]:
        """Return every variant ever used. Forgetting is rare, so it asks each time."""
        return sorted({*live, *variants_of(self._client)})


class _Script:
    """A Lua script that is sent once and then called by its hash."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._execute: Callable[..., Any] = client.execute_command
        self._source, self._sha = load_script(name)

    def __call__(self, keys: Sequence[str], args: Sequence[bytes | int | str]) -> Any:  # noqa: ANN401  each script returns its own
        with store_errors():
            try:
                return self._execute("EVALSHA", self._sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                # First use, a restart or a fail-over: nothing was run. EVAL also keeps the script.
                return self._execute("EVAL", self._source, len(keys), *keys, *args)
