"""The cost model of docs/sizing.md: what an event, a user fold and a viewer cost."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from streamer.factors import FeatureDtype
from streamer.stores.footprint import features_bytes, history_bytes, redis_bytes

REFERENCE_FACTORS: Final = 64


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured costs; processor times in microseconds.

    Attributes:
        machine: On what.
        event_us: Of consuming and decoding an event, and of counting it.
        user_us: Of a user in a batch: cache, merge, encoding, the call to Redis.
        entry_us: Of folding in one entry for one variant, at 64 factors.
        miss_us: Of reading and decoding a history that was not cached.
        redis_write_us: Of Redis's thread, for history and features of one variant.
        redis_variant_us: Of Redis's thread, for each further variant.
        redis_read_us: Of Redis's thread, for a history that was not cached.
        cache_hit_share: Of the viewers of a batch.
        cached_user_bytes: Of a worker's memory.
        process_bytes: Of a worker without any viewer.
        protocol_bytes: Beside keys and values, a user and call.
        record_overhead_bytes: Of a record in Kafka, beside its value.
    """

    machine: str
    event_us: float
    user_us: float
    entry_us: float
    miss_us: float
    redis_write_us: float
    redis_variant_us: float
    redis_read_us: float
    cache_hit_share: float
    cached_user_bytes: int
    process_bytes: int
    protocol_bytes: int
    record_overhead_bytes: int


COSTS: Final = Costs(
    machine="AMD EPYC, two cores of a shared machine",
    event_us=6.0,
    user_us=7.0,
    entry_us=0.16,
    miss_us=14.0,
    redis_write_us=16.0,
    redis_variant_us=6.0,
    redis_read_us=2.0,
    cache_hit_share=0.7,
    cached_user_bytes=1020,
    process_bytes=220_000_000,
    protocol_bytes=70,
    record_overhead_bytes=40,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Whom a plan is for; the options of `streamer plan`."""

    users: int
    events_per_second: int
    factors: int = 64
    interactions: float = 20.0
    variants: int = 1
    dtype: FeatureDtype = FeatureDtype.F16
    id_bytes: int = 16
    event_bytes: int = 215
    expires: bool = False
    imported: bool = False
    utilization: float = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What an audience needs."""

    n_workers: int
    n_partitions: int
    worker_cores: float
    worker_bytes: int
    redis_bytes: int
    n_shards: int
    redis_cores: float
    kafka_bytes_per_second: float
    redis_bytes_per_second: float


def plan_for(audience: Audience, costs: Costs = COSTS, cached_users: int = 100_000) -> Plan:
    """Return what this audience needs: pure arithmetic."""
    rate = audience.events_per_second
    n_misses = 1 - costs.cache_hit_share
    entry_us = costs.entry_us * audience.factors / REFERENCE_FACTORS
    event_us = (
        costs.event_us
        + costs.user_us
        + entry_us * audience.interactions * audience.variants
        + costs.miss_us * n_misses
    )
    redis_us = (
        costs.redis_write_us
        + costs.redis_variant_us * (audience.variants - 1)
        + costs.redis_read_us * n_misses
    )
    history = history_bytes(audience.interactions)
    features = features_bytes(audience.factors, audience.dtype)
    key_bytes = 12 + audience.id_bytes
    write_bytes = (
        costs.protocol_bytes
        + key_bytes
        + history
        + audience.variants * (key_bytes + 8 + features)
        + n_misses * (key_bytes + history)
    )
    worker_cores, redis_cores = rate * event_us / 1e6, rate * redis_us / 1e6
    n_workers = ceil(worker_cores / audience.utilization)
    return Plan(
        n_workers=n_workers,
        n_partitions=max(8, 1 << (2 * n_workers - 1).bit_length()),
        worker_cores=worker_cores,
        worker_bytes=costs.process_bytes + cached_users * costs.cached_user_bytes,
        redis_bytes=redis_bytes(
            audience.users,
            id_bytes=audience.id_bytes,
            n_interactions=audience.interactions,
            n_factors=audience.factors,
            dtype=audience.dtype,
            n_variants=audience.variants,
            expires=audience.expires,
            has_imported=audience.imported,
        ),
        n_shards=ceil(redis_cores / audience.utilization),
        redis_cores=redis_cores,
        kafka_bytes_per_second=rate * (audience.event_bytes + costs.record_overhead_bytes),
        redis_bytes_per_second=rate * write_bytes,
    )
