"""Stores of histories and features: Redis, and a memory adapter that passes the same contract."""

from streamer.stores.client import connect, ping, store_errors
from streamer.stores.memory import MemoryStore
from streamer.stores.redis_store import RedisStore, read_values
from streamer.stores.traces import Traces, read_traces

__all__ = [
    "MemoryStore",
    "RedisStore",
    "Traces",
    "connect",
    "ping",
    "read_traces",
    "read_values",
    "store_errors",
]
