"""Histories, features, marks and freshness in a Redis Cluster.

A script may touch one slot alone, so a batch goes in one call per bucket of users, all those of a
node at once. Each shard is a replication stream of its own: every bucket has marks and a sequence
of each writer, and what all buckets vouch for is what the store vouches for (ADR 0005).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from streamer.errors import StoreForgot
from streamer.pipeline.ports import Mark, MarkMove, WriteOutcome
from streamer.pipeline.records import Partition
from streamer.pipeline.step import UserWrites
from streamer.stores.bucket_marks import SeenMarks
from streamer.stores.client import store_errors, unavailable
from streamer.stores.cluster_client import ClusterClient
from streamer.stores.cluster_exchange import Call
from streamer.stores.keys import (
    FRESH,
    MARKS_OF_BUCKET,
    N_BUCKETS,
    SEQUENCES_OF_BUCKET,
    bucket_number,
    history_key,
    partition_field,
    quarantine_key,
)
from streamer.stores.marks import decode_mark, encode_mark
from streamer.stores.reading import read_many, variants_of
from streamer.stores.redis_store import DEFAULT_SUMS_DAYS
from streamer.stores.scripts import Script, load_script
from streamer.stores.slots import SLOTS
from streamer.stores.write_call import RowPacker, joined, outcome_of

MAX_USERS_PER_CALL: Final = 500
DAY_MS: Final = 86_400_000


class ClusterStore:
    """The feature store on a Redis Cluster, 6.2 or newer. Every call raises StoreUnavailable.

    Where one shard does not answer, the others may have done their part. That is kept: what was
    acknowledged there is remembered, and repeating it changes nothing.
    """

    def __init__(
        self,
        client: ClusterClient,
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
        self._group_id = group_id
        self._tombstone_ms = int(tombstone_days * DAY_MS)
        self._expire_ms = int(expire_after_days * DAY_MS)
        self._sums_ms = int(sums_days * DAY_MS)
        writer = uuid4().hex
        self._sequence_keys = [prefix + writer for prefix in SEQUENCES_OF_BUCKET]
        self._acknowledged = [0] * N_BUCKETS
        self._attempted = 0
        """Of all buckets: a bucket sees some of the numbers, and they rise."""
        self._seen: dict[Partition, SeenMarks] = {}
        self._scripts = {name: load_script(name) for name in ("write", "quarantine", "marks")}

    def read_histories(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """Return each user's stored history; a key that holds no string reads as None."""
        return read_many(self._client, list(map(history_key, user_ids)))

    def write(self, writes: UserWrites) -> WriteOutcome:
        """Compare and set every user, with one atomic script call per bucket."""
        packer = RowPacker(writes)
        outcomes: list[WriteOutcome] = []
        left = packer.rows_by_bucket()
        while left:
            # Never two calls of a bucket at once: redirected, the second might overtake.
            now = {bucket: rows[:MAX_USERS_PER_CALL] for bucket, rows in left.items()}
            outcomes += self._write_rows(writes, packer, now)
            later = {bucket: rows[MAX_USERS_PER_CALL:] for bucket, rows in left.items()}
            left = {bucket: rows for bucket, rows in later.items() if rows}
        return joined(outcomes)

    def _write_rows(
        self, writes: UserWrites, packer: RowPacker, rows: Mapping[int, Sequence[int]]
    ) -> list[WriteOutcome]:
        is_any_forgotten = any(map(packer.is_any_forgotten, rows.values()))
        all_variants = self._all_variants(tuple(writes.features)) if is_any_forgotten else []
        self._attempted += 1
        constants = (
            len(writes.features),
            self._tombstone_ms,
            self._expire_ms,
            self._sums_ms,
            packer.generations,
        )
        calls: list[Call] = []
        n_bytes: list[int] = []
        for bucket, rows_here in rows.items():
            packed = packer.pack(rows_here, all_variants)
            keys = (self._sequence_keys[bucket], *packed.keys)
            head = (self._acknowledged[bucket], self._attempted, len(rows_here), *constants)
            calls.append(_script_call(bucket, self._scripts["write"], keys, (*head, *packed.args)))
            n_bytes.append(packed.n_bytes)
        answers = self._send(calls)
        for bucket, answer in zip(rows, answers, strict=True):
            if isinstance(answer, list):
                self._acknowledged[bucket] = self._attempted
        self._ensure_remembered(rows, answers)
        return [
            outcome_of(answer, rows_here, n_sent)
            for answer, rows_here, n_sent in zip(answers, rows.values(), n_bytes, strict=True)
        ]

    def quarantine(self, user_id: str, value: bytes | None) -> None:
        """Rename the key if it still holds `value`, or still no string for None."""
        key = history_key(user_id)
        args = (value or b"", 1 if value is None else 0)
        keys = (key, quarantine_key(key))
        call = _script_call(bucket_number(user_id), self._scripts["quarantine"], keys, args)
        _ensure_answered(self._send([call]))

    def move_marks(self, moves: Mapping[Partition, MarkMove]) -> dict[Partition, Mark | None]:
        """Compare and set each mark in every bucket; return the smallest that is stored then."""
        if not moves:
            return {}
        fields = [partition_field(self._group_id, partition) for partition in moves]
        wanted = [encode_mark(move.wanted) for move in moves.values()]
        expected = [
            [encode_mark(mark) for mark in self._seen_marks(partition).expected(move)]
            for partition, move in moves.items()
        ]
        calls = []
        for bucket in range(N_BUCKETS):
            args: list[str | int] = [self._acknowledged[bucket]]
            for field, each, new in zip(fields, expected, wanted, strict=True):
                args += (field, each[bucket], new)
            keys = (MARKS_OF_BUCKET[bucket], self._sequence_keys[bucket])
            calls.append(_script_call(bucket, self._scripts["marks"], keys, args))
        answers = self._send(calls)
        found = self._see(list(moves), answers)
        self._ensure_remembered(range(N_BUCKETS), answers)
        return found

    def read_marks(self, partitions: Sequence[Partition]) -> dict[Partition, Mark | None]:
        """Return the smallest mark of each partition, None where a bucket has none."""
        if not partitions:
            return {}
        fields = [partition_field(self._group_id, partition) for partition in partitions]
        calls = [
            Call(SLOTS[bucket], ("HMGET", MARKS_OF_BUCKET[bucket], *fields))
            for bucket in range(N_BUCKETS)
        ]
        answers = self._send(calls)
        found = self._see(partitions, answers)
        _ensure_answered(answers)
        return found

    def write_fresh(self, fresh_ms: Mapping[Partition, int]) -> None:
        """Publish the time before which everything appended is readable, by partition."""
        if not fresh_ms:
            return
        pairs: list[str | int] = []
        for partition, before_ms in fresh_ms.items():
            pairs += (partition_field(self._group_id, partition), before_ms)
        with store_errors():
            self._client.execute_command("HSET", FRESH, *pairs)

    def _ensure_remembered(self, buckets: Iterable[int], answers: Sequence[Any]) -> None:
        """Raise if a bucket's shard has forgotten one of our acknowledged writes, or is silent."""
        forgetful = [b for b, answer in zip(buckets, answers, strict=True) if answer is None]
        for bucket in forgetful:
            self._acknowledged[bucket] = 0  # what comes again is counted from here
        if forgetful:
            raise StoreForgot("a shard of Redis has forgotten writes that it had acknowledged")
        _ensure_answered(answers)

    def _send(self, calls: Sequence[Call]) -> list[Any]:
        with store_errors():
            return self._client.call_many(calls)

    def _see(
        self, partitions: Sequence[Partition], answers: Sequence[Any]
    ) -> dict[Partition, Mark | None]:
        """Remember the marks of those buckets that answered; return the smallest."""
        found: dict[Partition, Mark | None] = {}
        for place, partition in enumerate(partitions):
            seen = self._seen_marks(partition)
            for bucket, answer in enumerate(answers):
                if isinstance(answer, list):
                    seen.see(bucket, decode_mark(answer[place]))
            found[partition] = seen.smallest()
        return found

    def _seen_marks(self, partition: Partition) -> SeenMarks:
        return self._seen.setdefault(partition, SeenMarks(N_BUCKETS))

    def _all_variants(self, live: Sequence[str]) -> list[str]:
        """Return every variant ever used. Forgetting is rare, so it asks each time."""
        return sorted({*live, *variants_of(self._client)})


def _script_call(
    bucket: int, script: Script, keys: Sequence[str], args: Sequence[bytes | int | str]
) -> Call:
    return Call(SLOTS[bucket], ("EVALSHA", script.sha, len(keys), *keys, *args), script)


def _ensure_answered(answers: Sequence[Any]) -> None:
    """Raise StoreUnavailable if a call has no answer."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise unavailable(answer) from answer
