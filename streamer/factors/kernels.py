"""The fold-in as compiled loops: one user after the other, so no result depends on a batch.

In whitened coordinates (`reference`) the system of a user is ``(I + Xᵀ D X) s = Xᵀ D t``, with
``D = diag(α w)`` and u = L⁻ᵀ s. It is solved by conjugate gradients (Hestenes, Stiefel 1952), which
need few steps because ``Xᵀ D X`` is small beside I for all but tiny catalogues: 4 or 5 for 20,000
items and α = 3, 10 for α = 40. A step passes over X once, for both vectors. As every eigenvalue is
at least 1, the error of s is at most its residual.

The arithmetic is that of `whitened`: float32 moves half the bytes and sums twice as many numbers at
once, and is exact enough for all but ill-conditioned models and users (`max_spread`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind, Thumb
from streamer.factors.whitened import Real
from streamer.history.compiled import compiled

N_VECTORS: Final = 2
MAX_STEPS: Final = 64
"""After so many, somebody else must solve the system."""
LEAST_SQUARE: Final = 1e-18
"""Of a right side. float32 could not tell the squares of smaller residuals from zero."""

SOLVED: Final = 0
REJECTED: Final = 1
NOT_SOLVED: Final = 2

_A_DOWN: Final = np.uint64(Thumb.DOWN << 8 | Kind.THUMB)
"""What the last 16 bits of a word say of a thumbs-down."""


@compiled
def hash_table(item_keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return keys and rows of an open hash table of the items, half full at most.

    A key is a hash already, so its last bits are its place; a place without an item has row -1.
    """
    n_places = 2
    while n_places < 2 * len(item_keys):
        n_places *= 2
    last = np.uint64(n_places - 1)
    keys = np.zeros(n_places, np.uint64)
    rows = np.full(n_places, -1, np.int32)
    for row in range(len(item_keys)):
        place = item_keys[row] & last
        while rows[place] >= 0:
            place = (place + np.uint64(1)) & last
        keys[place], rows[place] = item_keys[row], row
    return keys, rows


@compiled
def find_items(
    item_keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
    table_keys: NDArray[np.uint64],
    table_rows: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Return the item of each entry, (n_users, n_slots): -1 if unknown, or if there is no entry."""
    last = np.uint64(len(table_keys) - 1)
    items = np.full(item_keys.shape, -1, np.int32)
    for user in range(len(counts)):
        for slot in range(counts[user]):
            key = item_keys[user, slot]
            place = key & last
            while table_rows[place] >= 0 and table_keys[place] != key:
                place = (place + np.uint64(1)) & last
            items[user, slot] = table_rows[place]
    return items


@compiled
def whiten(
    item_factors: NDArray[np.float64],
    whitening: NDArray[np.float64],
    whitened: NDArray[np.float64],
) -> None:
    """Write x = L⁻¹ v of every row v, (n, n_factors); item by item, whatever comes with it."""
    for row in range(len(item_factors)):
        whitened[row] = 0.0
        for factor in range(len(whitening)):
            for other in range(len(whitening)):
                whitened[row, other] += item_factors[row, factor] * whitening[factor, other]


@compiled
def fold_in(  # noqa: PLR0913, PLR0917  a kernel takes arrays, not objects
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    counts: NDArray[np.int64],
    rows: NDArray[np.int32],
    whitened: NDArray[Real],
    whitening: NDArray[Real],
    strength: NDArray[np.float64],
    fade: NDArray[np.float64],
    floor: float,
    alpha: float,
    max_spread: float,
    tolerance: float,
    slack: float,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint8]]:
    """Fold users in.

    Args:
        item_keys: (n_users, n_slots).
        words: (n_users, n_slots), newest first.
        counts: (n_users,); entries in use.
        rows: (n_users, n_slots); where `whitened` has the item of each entry, -1 if unknown.
        whitened: (n_rows, n_factors), x = L⁻¹ v.
        whitening: (n_factors, n_factors), L⁻ᵀ, of the same dtype.
        strength: (256, 256), s of every (kind, value).
        fade: (256, 256), 2^(-min(1, s) / h) of every (kind, value).
        floor: c.
        alpha: α.
        max_spread: Of the eigenvalues of a system that is tried, times Σ ‖b‖² / ‖Σ b‖² of the terms
            b = α w t x of its right side if that is above 1, as it is when they cancel each other.
        tolerance: Of ‖residual‖ / ‖s‖.
        slack: Relative room for rounding in the bound ‖s‖² ≤ α Σ w.

    Returns:
        Vectors (n_users, N_VECTORS, n_factors), zeros for those who are not solved; n_solved
        (n_users,); SOLVED, REJECTED or NOT_SOLVED (n_users,).
    """
    n_users, n_slots = words.shape
    n_factors = whitening.shape[0]
    vectors = np.zeros((n_users, N_VECTORS, n_factors), np.float32)
    n_solved = np.zeros(n_users, np.int64)
    states = np.zeros(n_users, np.uint8)
    kept = np.empty(n_slots, np.int64)
    weights = np.empty((N_VECTORS, n_slots), whitened.dtype)
    targets = np.empty(n_slots, whitened.dtype)
    solution = np.empty((N_VECTORS, n_factors), whitened.dtype)
    scratch = np.empty((3, N_VECTORS, n_factors), whitened.dtype)
    for user in range(n_users):
        n_entries, n_solved[user] = _select(
            item_keys[user, : counts[user]],
            words[user],
            rows[user],
            strength,
            fade,
            floor,
            alpha,
            kept,
            weights,
            targets,
        )
        if n_solved[user] == 0:
            continue
        mine = kept[:n_entries]
        if not _solve(whitened, mine, weights, targets, max_spread, tolerance, solution, scratch):
            states[user] = NOT_SOLVED
            continue
        for which in range(N_VECTORS):
            # ‖s‖² is uᵀ(G + λI)u.
            bound = weights[which, :n_entries].sum() * (1.0 + slack)
            is_sound = _dot(solution[which], solution[which]) <= bound
            for factor in range(n_factors):
                value = np.float32(_dot(whitening[factor], solution[which]))
                vectors[user, which, factor] = value
                is_sound &= np.isfinite(value)
            if not is_sound:
                states[user] = REJECTED
    return vectors, n_solved, states


@compiled
def _select(  # noqa: PLR0913, PLR0917  as above
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    rows: NDArray[np.int32],
    strength: NDArray[np.float64],
    fade: NDArray[np.float64],
    floor: float,
    alpha: float,
    kept: NDArray[np.int64],
    weights: NDArray[Real],
    targets: NDArray[Real],
) -> tuple[int, int]:
    """Write rows, α w and targets of the entries that are solved; return how many, and with t = 1.

    w = s · (c + (1 - c) · 2^(-rank / h)) for `recent`, and s for `lasting`.
    """
    has_down = False
    for slot in range(len(item_keys)):
        has_down |= is_thumbs_down(words[slot])
    n_entries = 0
    n_positive = 0
    faded = 1.0  # 2^(-rank / h)
    for slot in range(len(item_keys)):
        kind = np.int64(words[slot] & np.uint64(0xFF))
        value = np.int64(words[slot] >> np.uint64(8) & np.uint64(0xFF))
        weight = alpha * strength[kind, value]
        recent = weight * (floor + (1.0 - floor) * faded)
        faded *= fade[kind, value]
        if rows[slot] < 0 or weight <= 0.0:
            continue
        is_down = is_thumbs_down(words[slot])
        if has_down and not is_down and has_thumbs_down(item_keys, words, item_keys[slot]):
            continue
        kept[n_entries] = rows[slot]
        weights[0, n_entries] = recent
        weights[1, n_entries] = weight
        targets[n_entries] = 0.0 if is_down else 1.0
        n_entries += 1
        n_positive += not is_down
    return n_entries, n_positive


@compiled
def is_thumbs_down(word: np.uint64) -> bool:
    """Say what kind and value of an entry mean."""
    return bool(word & np.uint64(0xFFFF) == _A_DOWN)


@compiled
def has_thumbs_down(
    item_keys: NDArray[np.uint64], words: NDArray[np.uint64], item_key: np.uint64
) -> bool:
    """Say whether the user gave this item a thumbs-down, which hides its other entries."""
    for slot in range(len(item_keys)):
        if item_keys[slot] == item_key and is_thumbs_down(words[slot]):
            return True
    return False


@compiled
def _dot(a: NDArray[Real], b: NDArray[Real]) -> Real:
    total: Real = a.dtype.type(0)
    for index in range(len(a)):
        total += a[index] * b[index]
    return total


@compiled
def _solve(  # noqa: PLR0913, PLR0917  as above
    whitened: NDArray[Real],
    rows: NDArray[np.int64],
    weights: NDArray[Real],
    targets: NDArray[Real],
    max_spread: float,
    tolerance: float,
    solution: NDArray[Real],
    scratch: NDArray[Real],
) -> bool:
    """Solve both systems into `solution`; say whether that worked."""
    n_factors = whitened.shape[1]
    s0, s1 = solution[0], solution[1]
    r0, r1 = scratch[0, 0], scratch[0, 1]
    p0, p1 = scratch[1, 0], scratch[1, 1]
    q0, q1 = scratch[2, 0], scratch[2, 1]
    solution[:] = 0.0
    scratch[:] = 0.0
    trace = terms0 = terms1 = whitened.dtype.type(0)
    for entry in range(len(rows)):
        x = whitened[rows[entry]]
        b0, b1 = weights[0, entry] * targets[entry], weights[1, entry] * targets[entry]
        square = _dot(x, x)
        # `lasting` weighs every entry at least as much as `recent`.
        trace += weights[1, entry] * square
        terms0 += b0 * b0 * square
        terms1 += b1 * b1 * square
        for factor in range(n_factors):
            r0[factor] += b0 * x[factor]
            r1[factor] += b1 * x[factor]
    square0, square1 = _dot(r0, r0), _dot(r1, r1)
    # Terms that cancel each other leave a right side that their rounding reaches.
    room = max_spread / (1.0 + trace)
    if not (room >= 1.0 and terms0 <= room * square0 and terms1 <= room * square1):
        return False
    if 0.0 < min(square0, square1) < LEAST_SQUARE:
        return False
    p0[:], p1[:] = r0, r1
    for _ in range(MAX_STEPS):
        _apply(whitened, rows, weights, p0, p1, q0, q1)
        length0 = _quotient(square0, _dot(p0, q0))
        length1 = _quotient(square1, _dot(p1, q1))
        for factor in range(n_factors):
            s0[factor] += length0 * p0[factor]
            s1[factor] += length1 * p1[factor]
            r0[factor] -= length0 * q0[factor]
            r1[factor] -= length1 * q1[factor]
        before0, before1 = square0, square1
        square0, square1 = _dot(r0, r0), _dot(r1, r1)
        if square0 <= tolerance**2 * _dot(s0, s0) and square1 <= tolerance**2 * _dot(s1, s1):
            return True
        turn0, turn1 = _quotient(square0, before0), _quotient(square1, before1)
        for factor in range(n_factors):
            p0[factor] = r0[factor] + turn0 * p0[factor]
            p1[factor] = r1[factor] + turn1 * p1[factor]
    return False


@compiled
def _quotient(a: Real, b: Real) -> Real:
    """Return a / b; 0, which is b then, if there is nothing left to do for this vector."""
    return a / b if b > 0.0 else b


@compiled
def _apply(  # noqa: PLR0913, PLR0917  as above
    whitened: NDArray[Real],
    rows: NDArray[np.int64],
    weights: NDArray[Real],
    p0: NDArray[Real],
    p1: NDArray[Real],
    q0: NDArray[Real],
    q1: NDArray[Real],
) -> None:
    """Write q = (I + Xᵀ D X) p for both vectors; two entries at a time share what they read."""
    n_factors = whitened.shape[1]
    q0[:], q1[:] = p0, p1
    for entry in range(0, len(rows) - 1, 2):
        x, y = whitened[rows[entry]], whitened[rows[entry + 1]]
        x0 = x1 = y0 = y1 = whitened.dtype.type(0)
        for factor in range(n_factors):
            x0 += x[factor] * p0[factor]
            x1 += x[factor] * p1[factor]
            y0 += y[factor] * p0[factor]
            y1 += y[factor] * p1[factor]
        x0 *= weights[0, entry]
        x1 *= weights[1, entry]
        y0 *= weights[0, entry + 1]
        y1 *= weights[1, entry + 1]
        for factor in range(n_factors):
            q0[factor] += x0 * x[factor] + y0 * y[factor]
            q1[factor] += x1 * x[factor] + y1 * y[factor]
    if len(rows) % 2:
        last = len(rows) - 1
        x = whitened[rows[last]]
        x0, x1 = weights[0, last] * _dot(x, p0), weights[1, last] * _dot(x, p1)
        for factor in range(n_factors):
            q0[factor] += x0 * x[factor]
            q1[factor] += x1 * x[factor]
