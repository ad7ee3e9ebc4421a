"""The recorded log: what viewers did, once, from a seed.

Events of every type in the order of their own time, one a second; some malformed, some without a
key, and viewers who ask to be forgotten. Every viewer is in it.
"""

from random import Random

import oracle
from integration.worker_process import BASE_MS, Sent, event, user

from streamer.dev.faults import FAULTS

ITEMS = [f"title-{number}" for number in range(300)]
TYPES = [event_type for event_type in oracle.TYPES if event_type != "forget"]
STEP_MS = 1000
WATCHED_S = (0, 20, 600, 1800, 3000)
BAD_SHARE = 0.01
KEYLESS_SHARE = 0.02
FORGET_SHARE = 0.001
DUPLICATE_SHARE = 0.2
MAX_LATENESS_MS = 600_000


def record(seed, n_events, n_users):
    """Return the log as (event time in ms, record to produce)."""
    random = Random(seed)
    return [
        (time_ms, _one(random, index, n_users, time_ms))
        for index in range(n_events)
        for time_ms in [BASE_MS + index * STEP_MS]
    ]


def _one(random, index, n_users, time_ms):
    if index < n_users:  # everybody once, then some more than others
        return _sent("play", index, event("play_stop", index, random.choice(ITEMS), time_ms))
    who = int(n_users * random.random() ** 2)
    topic = random.choice(("play", "browse"))
    kind = random.random()
    if kind < BAD_SHARE:
        return _sent(topic, who, random.choice(FAULTS).make(user(who), time_ms))
    if kind < BAD_SHARE + FORGET_SHARE:
        return _sent(topic, who, event("forget", who, time_ms=time_ms))
    watched_s = random.choice(WATCHED_S)
    item = ITEMS[int(len(ITEMS) * random.random() ** 2)]
    value = event(random.choice(TYPES), who, item, time_ms, watched_s=watched_s)
    sent = _sent(topic, who, value)
    return sent._replace(key=None) if random.random() < KEYLESS_SHARE else sent


def _sent(topic, who, value):
    return Sent(topic, user(who).encode(), value)


def in_order(log):
    """Return the records as they happened."""
    return [sent for _, sent in log]


def disturbed(log, seed):
    """Return the records as they may arrive: a fifth of them twice, and up to 10 minutes late."""
    random = Random(seed)
    n_twice = round(len(log) * DUPLICATE_SHARE / (1 - DUPLICATE_SHARE))
    arrivals = [
        (time_ms + random.randrange(MAX_LATENESS_MS), sent)
        for time_ms, sent in [*log, *random.sample(log, n_twice)]
    ]
    return [sent for _, sent in sorted(arrivals, key=lambda arrival: arrival[0])]
