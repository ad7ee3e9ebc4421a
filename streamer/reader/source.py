"""What a reader asks of the world, as a port, and Redis as its adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from streamer.models import Pointer, read_pointer
from streamer.stores import RedisClient, read_many, store_errors
from streamer.stores.keys import FRESH


class FeatureSource(Protocol):
    """Where features are read from. Every call raises StoreUnavailable and may be repeated."""

    def read_values(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, None where there is none or no string."""
        ...

    def read_fresh(self) -> Mapping[bytes, bytes]:
        """Return the fields of ``st:fresh``: times in milliseconds, of every group."""
        ...

    def read_pointer(self, variant: str) -> Pointer | None:
        """Return which model of a variant is live; None before the first publish.

        Raises:
            ModelError: The stored value is not a pointer.
        """
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...


class RedisSource:
    """One Redis, or a cluster; safe to use from several threads."""

    def __init__(self, client: RedisClient) -> None:
        """Keep `client`, from `streamer.stores.connect`; nothing is sent yet."""
        self._client = client

    def read_values(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key: in one command, of a cluster in one per slot."""
        return read_many(self._client, keys)

    def read_fresh(self) -> Mapping[bytes, bytes]:
        """Return the fields of ``st:fresh``."""
        with store_errors():
            fields: Mapping[bytes, bytes] = self._client.execute_command("HGETALL", FRESH)
        return fields

    def read_pointer(self, variant: str) -> Pointer | None:
        """Return which model of a variant is live."""
        return read_pointer(self._client, variant)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()
