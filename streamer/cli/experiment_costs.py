"""What a variant costs: bytes of Redis a user, and CPU an event, by the costs of docs/sizing.md."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.cli.plan_costs import COSTS, REFERENCE_FACTORS, Costs
from streamer.experiments import Variant
from streamer.factors import BUILT_INS, DEFAULT_LEARNER, FeatureDtype
from streamer.stores.footprint import features_bytes, key_bytes, table_bytes
from streamer.stores.keys import features_key

_MANY_KEYS = 1 << 20
_MEASURED = {DEFAULT_LEARNER, "flat_fold_in"}  # the same loops, for one vector of the two


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What costs depend on; the options of `streamer experiments check`."""

    factors: int = 64
    interactions: float = 20.0
    dtype: FeatureDtype = FeatureDtype.F16
    id_bytes: int = 16


@dataclass(frozen=True, slots=True)
class VariantCost:
    """What one variant adds.

    Attributes:
        redis_bytes_per_user: Features, their key, and its place in the table.
        redis_us_per_event: Of Redis's thread.
        worker_us_per_event: Of a worker; None for a learner that nobody has measured here.
    """

    redis_bytes_per_user: int
    redis_us_per_event: float
    worker_us_per_event: float | None


def variant_cost(variant: Variant, workload: Workload, costs: Costs = COSTS) -> VariantCost:
    """Return what computing and storing one more variant for all users costs."""
    key = features_key(variant.name, "u" * workload.id_bytes)
    built_in = BUILT_INS.get(variant.learner, BUILT_INS[DEFAULT_LEARNER])
    size = features_bytes(workload.factors, workload.dtype, built_in.n_vectors)
    place = table_bytes(_MANY_KEYS, expires=False) // _MANY_KEYS
    fold_us = costs.entry_us * workload.factors / REFERENCE_FACTORS * workload.interactions
    return VariantCost(
        redis_bytes_per_user=key_bytes(key, size, expires=False) + place,
        redis_us_per_event=costs.redis_variant_us,
        worker_us_per_event=fold_us if variant.learner in _MEASURED else None,
    )
