"""Outcomes of experiments once more, one event at a time, in dicts: the judge of the fast code.

Written from docs/reference/experiments.md and the oracle of histories; nothing of the package.
"""

import hashlib
import math
from collections import Counter
from typing import NamedTuple

import oracle


class Trial(NamedTuple):
    """An experiment: its cells as (name, first slot, last slot), all of them in use."""

    name: str
    salt: str
    cells: tuple
    start_ms: int


class Seen(NamedTuple):
    """An accepted event, and how long the title is."""

    accepted: oracle.Accepted
    duration_s: float = 0.0


def cell_of(user_id, trial):
    digest = hashlib.sha256(f"{trial.salt}:{user_id}".encode()).digest()
    slot = int.from_bytes(digest[:8], "little") % 10_000
    return next((name for name, first, last in trial.cells if first <= slot <= last), None)


def outcomes(events, trials):
    """Return the sums of each trial by (bucket, field), of events in the order of their arrival."""
    states, sums = {}, {trial.name: Counter() for trial in trials}
    for seen in events:
        user_id = seen.accepted.user_id
        before = states.get(user_id, oracle.State())
        interaction = seen.accepted.interaction
        after = before.merged(oracle.State()).learn(
            [interaction] if interaction else [], seen.accepted.forgotten_before_ms or 0
        )
        states[user_id] = after
        for trial in trials:
            cell = cell_of(user_id, trial)
            if cell is None:
                continue
            for name, amount in gains(before, after, seen, trial.start_ms).items():
                sums[trial.name][int(oracle.bucket(user_id), 16), f"{cell}/{name}"] += amount
    return {name: {key: n for key, n in found.items() if n} for name, found in sums.items()}


def gains(before, after, seen, start_ms):
    found = Counter(users=latest(before) < start_ms <= latest(after))
    each = seen.accepted.interaction
    if each is None or each.event_time_ms < start_ms:
        return found
    key = each.item_key, each.kind
    old = before.entries.get(key)
    if after.entries.get(key) != each or old == each:
        return found
    if old is not None and old.event_time_ms < start_ms:
        old = None
    if each.kind == oracle.PLAY:
        is_continued = old is not None and each.value >= old.value
        progress = each.value - (old.value if is_continued else 0)
        length_s = min(seen.duration_s, 86_400)
        found["plays"] = not is_continued
        found["completion"] = progress
        found["watched_ms"] = math.floor(progress * length_s * 5 + 0.5)
    if each.kind == oracle.THUMB:
        for name, value in (("thumbs_up", 2), ("thumbs_down", 1)):
            found[name] = (each.value == value) - (old is not None and old.value == value)
    return found


def latest(state):
    times = (entry.event_time_ms for entry in state.entries.values())
    return max([0, state.forgotten_before_ms, *times])


def flat(sums):
    """Return the sums of 256 buckets as `outcomes` does; those that came back to 0 are left out."""
    return {
        (bucket, field): amount
        for bucket, fields in enumerate(sums)
        for field, amount in fields.items()
        if amount
    }
