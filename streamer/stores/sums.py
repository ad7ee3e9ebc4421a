"""Reading the sums of experiments: those of every bucket of users, for whoever reports."""

from __future__ import annotations

from typing import Any

import redis

from streamer.experiments import Book
from streamer.stores.client import RedisClient, store_errors, unavailable
from streamer.stores.cluster_exchange import Call
from streamer.stores.keys import N_BUCKETS, sums_key
from streamer.stores.slots import SLOTS

BucketFields = dict[str, int]


def read_sums(client: RedisClient, book: Book) -> list[BucketFields]:
    """Return the sums of each bucket of users by their fields; empty where there are none.

    One round of 256 small reads; they are not of one instant.

    Raises:
        StoreUnavailable: Redis did not answer, or a key holds something else.
    """
    keys = [sums_key(bucket, book) for bucket in range(N_BUCKETS)]
    with store_errors():
        if isinstance(client, redis.Redis):
            with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.hgetall(key)
                answers: list[Any] = pipeline.execute()
        else:
            calls = [Call(SLOTS[b], ("HGETALL", key)) for b, key in enumerate(keys)]
            answers = client.call_many(calls)
    return [_fields(answer) for answer in answers]


def _fields(answer: Any) -> BucketFields:  # noqa: ANN401  a mapping or a flat list, by protocol
    if isinstance(answer, Exception):
        raise unavailable(answer) from answer
    if isinstance(answer, list):
        answer = dict(zip(answer[::2], answer[1::2], strict=True))
    return {field.decode(): int(amount) for field, amount in answer.items() if _is_whole(amount)}


def _is_whole(amount: bytes) -> bool:
    """Sums are whole numbers; whatever else stands there is nobody's of ours."""
    return amount.removeprefix(b"-").isdigit()
