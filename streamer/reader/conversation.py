"""Asking Redis without doing so: what both readers have in common knows no sockets and no waiting.

A conversation is a generator. It yields the keys that it needs, is sent their values, and returns
its result. Where Redis does not answer, StoreUnavailable is thrown into it. The readers hold it,
one by calling and one by awaiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TypeVar

from streamer.errors import StoreUnavailable

Values = list[bytes | None]
T = TypeVar("T")
Conversation = Generator[Sequence[str], Values, T]


def hold(conversation: Conversation[T], read_values: Callable[[Sequence[str]], Values]) -> T:
    """Answer every question by calling `read_values`, which may raise StoreUnavailable."""
    try:
        keys = next(conversation)
        while True:
            try:
                values = read_values(keys)
            except StoreUnavailable as failure:
                keys = conversation.throw(failure)
            else:
                keys = conversation.send(values)
    except StopIteration as end:
        result: T = end.value
        return result


async def hold_async(
    conversation: Conversation[T], read_values: Callable[[Sequence[str]], Awaitable[Values]]
) -> T:
    """As `hold`, awaiting. Cancelled, it leaves nothing behind: the conversation just ends."""
    try:
        keys = next(conversation)
        while True:
            try:
                values = await read_values(keys)
            except StoreUnavailable as failure:
                keys = conversation.throw(failure)
            else:
                keys = conversation.send(values)
    except StopIteration as end:
        result: T = end.value
        return result
