"""How much memory our keys take in Redis: a forecast from how Redis and jemalloc lay them out.

Redis 7.0 keeps a key as an entry of a hash table, a name and a value, each an allocation of its
own; jemalloc rounds each up to one of its sizes. `tests/integration` holds the forecast against
``used_memory``.
"""

from __future__ import annotations

from typing import Final

from streamer.factors.features import HEADER as FEATURES_HEADER
from streamer.factors.features import FeatureDtype
from streamer.factors.imported import HEADER as IMPORTED_HEADER
from streamer.history.codec import ENTRY, HEADER
from streamer.stores.keys import features_key, history_key, imported_key

N_VECTORS: Final = 2
BASE_BYTES: Final = 1_000_000
"""An empty Redis with our scripts and one client."""

_ENTRY_BYTES: Final = 24
_OBJECT_BYTES: Final = 16
_POINTER_BYTES: Final = 8


def allocated(n_bytes: int) -> int:
    """Return what jemalloc gives for so many bytes: steps of 16 to 128, then 4 sizes an octave."""
    if n_bytes <= 8:
        return 8
    if n_bytes <= 128:
        return -(-n_bytes // 16) * 16
    step = 1 << ((n_bytes - 1).bit_length() - 3)
    return -(-n_bytes // step) * step


def string_bytes(n_bytes: int) -> int:
    """Return what a string of so many bytes takes: it knows its length, and ends with a zero."""
    return allocated(n_bytes + (2 if n_bytes < 32 else 4 if n_bytes < 256 else 6))


def key_bytes(key: str, n_value_bytes: int, *, expires: bool) -> int:
    """Return what one key of a long value takes, without its place in the table."""
    name = string_bytes(len(key.encode()))
    entry = allocated(_ENTRY_BYTES)
    value = allocated(_OBJECT_BYTES) + string_bytes(n_value_bytes)
    return name + entry * (2 if expires else 1) + value


def table_bytes(n_keys: int, *, expires: bool) -> int:
    """Return what the hash table of so many keys takes: a power of two of pointers."""
    n_buckets = max(4, 1 << (n_keys - 1).bit_length()) if n_keys else 0
    return n_buckets * _POINTER_BYTES * (2 if expires else 1)


def history_bytes(n_interactions: float) -> int:
    """Return the bytes of a history's value."""
    return HEADER.itemsize + round(n_interactions * ENTRY.itemsize)


def features_bytes(n_factors: int, dtype: FeatureDtype, n_vectors: int = N_VECTORS) -> int:
    """Return the bytes of a features' value."""
    return FEATURES_HEADER.itemsize + n_vectors * n_factors * dtype.numpy.itemsize


def imported_bytes(n_factors: int, dtype: FeatureDtype) -> int:
    """Return the bytes of an imported vector's value."""
    return IMPORTED_HEADER.itemsize + n_factors * dtype.numpy.itemsize


def imported_user_bytes(
    user_id: str, n_factors: int, dtype: FeatureDtype, variant: str, *, expires: bool
) -> int:
    """Return what one user's imported vector takes, its place in the table left out."""
    size = imported_bytes(n_factors, dtype)
    return key_bytes(imported_key(variant, user_id), size, expires=expires)


def user_bytes(
    user_id: str,
    n_interactions: float,
    n_factors: int,
    dtype: FeatureDtype,
    variants: list[str],
    *,
    expires: bool,
) -> int:
    """Return what one user's keys take, without their places in the table."""
    history = key_bytes(history_key(user_id), history_bytes(n_interactions), expires=expires)
    size = features_bytes(n_factors, dtype)
    return history + sum(
        key_bytes(features_key(variant, user_id), size, expires=expires) for variant in variants
    )


def redis_bytes(  # noqa: PLR0913  each is a line of the question
    n_users: int,
    *,
    id_bytes: int,
    n_interactions: float,
    n_factors: int,
    dtype: FeatureDtype,
    n_variants: int,
    expires: bool,
    has_imported: bool = False,
) -> int:
    """Forecast ``used_memory`` of one Redis with so many users.

    Args:
        n_users: Users with a history.
        id_bytes: Length of a user id.
        n_interactions: Entries of a history, on average, 0 to 55.
        n_factors: Dimension of the vectors.
        dtype: Of the stored vectors.
        n_variants: Features a user.
        expires: Whether keys expire after inactivity.
        has_imported: Whether each user has an imported vector of the first variant.
    """
    variants = ["default", *(f"variant{number}" for number in range(1, n_variants))]
    user_id, n_keys = "u" * id_bytes, 1 + n_variants
    each = user_bytes(user_id, n_interactions, n_factors, dtype, variants, expires=expires)
    if has_imported:
        each += imported_user_bytes(user_id, n_factors, dtype, variants[0], expires=expires)
        n_keys += 1
    return BASE_BYTES + n_users * each + table_bytes(n_users * n_keys, expires=expires)
