"""The merge and the digest as compiled loops: one user after the other."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.history.compiled import compiled
from streamer.history.layout import CAPACITIES, GROUP_OF_KIND, NO_GROUP
from streamer.history.merge import Outcome

_CAPACITIES: Final = CAPACITIES
_GROUP_OF_KIND: Final = GROUP_OF_KIND
_NEW: Final = int(Outcome.NEW)
_NEWER: Final = int(Outcome.NEWER)
_KNOWN: Final = int(Outcome.KNOWN)
_OUT_OF_WINDOW: Final = int(Outcome.OUT_OF_WINDOW)
_FORGOTTEN: Final = int(Outcome.FORGOTTEN)


@compiled
def merge(  # noqa: PLR0913, PLR0917  a kernel takes arrays, not objects
    held_keys: NDArray[np.uint64],
    held_words: NDArray[np.uint64],
    held_counts: NDArray[np.int64],
    forgotten_before_ms: NDArray[np.uint64],
    starts: NDArray[np.int64],
    new_keys: NDArray[np.uint64],
    new_words: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]:
    """Merge each user's held and new entries, both newest first.

    Args:
        held_keys: (n_users, n_slots).
        held_words: (n_users, n_slots).
        held_counts: (n_users,).
        forgotten_before_ms: (n_users,); entries at or before it are left out.
        starts: (n_users + 1,); the new entries of a user are starts[user] : starts[user + 1].
        new_keys: (n,), each user's in descending order of (word, key).
        new_words: (n,).

    Returns:
        Keys, words and counts like the held ones, and the outcome of each new entry (n,).
    """
    n_users, n_slots = held_words.shape
    keys = np.zeros((n_users, n_slots), np.uint64)
    words = np.zeros((n_users, n_slots), np.uint64)
    counts = np.zeros(n_users, np.int64)
    outcomes = np.empty(len(new_keys), np.uint8)
    for user in range(n_users):
        mine = slice(starts[user], starts[user + 1])
        n_held = _count_alive(held_words[user, : held_counts[user]], forgotten_before_ms[user])
        counts[user] = _merge_one(
            held_keys[user, :n_held],
            held_words[user, :n_held],
            new_keys[mine],
            new_words[mine],
            forgotten_before_ms[user],
            keys[user],
            words[user],
            outcomes[mine],
        )
    return keys, words, counts, outcomes


@compiled
def _merge_one(  # noqa: PLR0913, PLR0917  as above
    held_keys: NDArray[np.uint64],
    held_words: NDArray[np.uint64],
    new_keys: NDArray[np.uint64],
    new_words: NDArray[np.uint64],
    forgotten_before_ms: np.uint64,
    keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    outcomes: NDArray[np.uint8],
) -> int:
    """Write one user's entries and outcomes, and return how many entries there are.

    Going from the newest to the oldest, an entry is the last writer of its (key, kind) if none was
    there before it, and is kept if its group has room. What is not kept counts all the same.
    """
    n_in_group = np.zeros(len(_CAPACITIES), np.int64)
    n_kept, held, new = 0, 0, 0
    while held < len(held_keys) or new < len(new_keys):
        is_new = held == len(held_keys) or (
            new < len(new_keys)
            and _is_above(new_words[new], new_keys[new], held_words[held], held_keys[held])
        )
        key = new_keys[new] if is_new else held_keys[held]
        word = new_words[new] if is_new else held_words[held]
        group = _GROUP_OF_KIND[word & np.uint64(0xFF)]
        assert group != NO_GROUP, "a word without a kind reached the merge"
        outcome = _KNOWN
        if word >> np.uint64(16) <= forgotten_before_ms:
            outcome = _FORGOTTEN
        elif not _has(new_keys[:new], new_words[:new], key, word) and not (
            is_new and _has(held_keys[:held], held_words[:held], key, word)
        ):
            outcome = _OUT_OF_WINDOW
            if n_in_group[group] < _CAPACITIES[group]:
                is_newer = is_new and _has(held_keys[held:], held_words[held:], key, word)
                outcome = _NEWER if is_newer else _NEW
                keys[n_kept], words[n_kept] = key, word
                n_kept += 1
            n_in_group[group] += 1
        if is_new:
            outcomes[new] = outcome
            new += 1
        else:
            held += 1
    return n_kept


@compiled
def changes(  # noqa: PLR0913, PLR0917  as above
    held_keys: NDArray[np.uint64],
    held_words: NDArray[np.uint64],
    held_counts: NDArray[np.int64],
    forgotten_before_ms: NDArray[np.uint64],
    starts: NDArray[np.int64],
    new_keys: NDArray[np.uint64],
    new_words: NDArray[np.uint64],
) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """Apply each user's new entries one at a time; as `merge`, but they come oldest first.

    Returns:
        Whether each new entry entered (n,), and the word that it replaced, or 0 (n,).
    """
    n_users, n_slots = held_words.shape
    has_changed = np.zeros(len(new_keys), np.bool_)
    before = np.zeros(len(new_keys), np.uint64)
    keys = np.empty(n_slots + 1, np.uint64)
    words = np.empty(n_slots + 1, np.uint64)
    for user in range(n_users):
        if starts[user] == starts[user + 1]:
            continue
        count = _count_alive(held_words[user, : held_counts[user]], forgotten_before_ms[user])
        keys[:count] = held_keys[user, :count]
        words[:count] = held_words[user, :count]
        for new in range(starts[user], starts[user + 1]):
            if new_words[new] >> np.uint64(16) > forgotten_before_ms[user]:
                count, has_changed[new], before[new] = _enter(
                    keys, words, count, new_keys[new], new_words[new]
                )
    return has_changed, before


@compiled
def _enter(
    keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    count: int,
    key: np.uint64,
    word: np.uint64,
) -> tuple[int, bool, np.uint64]:
    """Apply one entry to one user's, in any order; return the new count, and as `changes` does."""
    kind = word & np.uint64(0xFF)
    group = _GROUP_OF_KIND[kind]
    nothing = np.uint64(0)
    mine, oldest, n_in_group, n_newer = -1, -1, 0, 0
    for slot in range(count):
        if _GROUP_OF_KIND[words[slot] & np.uint64(0xFF)] != group:
            continue
        n_in_group += 1
        if keys[slot] == key and words[slot] & np.uint64(0xFF) == kind:
            mine = slot
        n_newer += _is_above(words[slot], keys[slot], word, key)
        if oldest < 0 or _is_above(words[oldest], keys[oldest], words[slot], keys[slot]):
            oldest = slot
    if mine >= 0:
        before = words[mine]
        if before >= word:
            return count, False, nothing
        words[mine] = word
        return count, True, before
    if n_in_group < _CAPACITIES[group]:
        keys[count], words[count] = key, word
        return count + 1, True, nothing
    if n_newer == n_in_group:
        return count, False, nothing
    keys[oldest], words[oldest] = key, word
    return count, True, nothing


@compiled
def _count_alive(words: NDArray[np.uint64], forgotten_before_ms: np.uint64) -> int:
    count = len(words)
    while count and words[count - 1] >> np.uint64(16) <= forgotten_before_ms:
        count -= 1
    return count


@compiled
def _is_above(word: np.uint64, key: np.uint64, other_word: np.uint64, other_key: np.uint64) -> bool:
    """Say whether one entry is strictly newer than another in the total order."""
    return bool(word > other_word or (word == other_word and key > other_key))


@compiled
def _has(
    keys: NDArray[np.uint64], words: NDArray[np.uint64], key: np.uint64, word: np.uint64
) -> bool:
    """Say whether one of the entries has this key, and the kind of this word."""
    kind = word & np.uint64(0xFF)
    for index in range(len(keys)):
        if keys[index] == key and words[index] & np.uint64(0xFF) == kind:
            return True
    return False


@compiled
def digest(
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    counts: NDArray[np.int64],
    forgotten_before_ms: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """Return Σ mix(item_key + mix(word)) + mix(forgotten_before_ms + 1) mod 2⁶⁴, (n_users,)."""
    digests = np.empty(len(counts), np.uint64)
    for user in range(len(counts)):
        total = _mix(forgotten_before_ms[user] + np.uint64(1))
        for slot in range(counts[user]):
            total += _mix(item_keys[user, slot] + _mix(words[user, slot]))
        digests[user] = total
    return digests


@compiled
def _mix(number: np.uint64) -> np.uint64:
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))
