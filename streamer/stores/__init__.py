"""Stores of histories and features: Redis, and a memory adapter that passes the same contract."""

from streamer.stores.client import RedisClient, connect, ping, store_errors
from streamer.stores.cluster_store import ClusterStore
from streamer.stores.imported import ImportedVectors
from streamer.stores.memory import MemoryStore
from streamer.stores.memory_scan import MemoryScan
from streamer.stores.opening import open_store
from streamer.stores.reading import read_many, read_values
from streamer.stores.redis_store import RedisStore
from streamer.stores.scanning import RedisScan
from streamer.stores.sums import read_sums
from streamer.stores.traces import Traces, read_traces

__all__ = [
    "ClusterStore",
    "ImportedVectors",
    "MemoryScan",
    "MemoryStore",
    "RedisClient",
    "RedisScan",
    "RedisStore",
    "Traces",
    "connect",
    "open_store",
    "ping",
    "read_many",
    "read_sums",
    "read_traces",
    "read_values",
    "store_errors",
]
