"""What the property tests draw from: logs, histories and models, in the words of the oracle."""

import random

import numpy as np
import oracle
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

BASE_MS = 1_764_000_000_000
N_VALUES = {
    oracle.PLAY: 201,
    oracle.BRIEF_PLAY: 201,
    oracle.DETAIL_VIEW: 1,
    oracle.TRAILER_VIEW: 1,
    oracle.MY_LIST: 2,
    oracle.THUMB: 3,
}
KIND_SHARES = (8, 2, 3, 2, 2, 3)  # in the order of the numbers; viewing overflows most often


def examples(count):
    """So many examples and no deadline: the machine may be busy."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


seeds = st.integers(0, 2**32 - 1)

# --- interactions, drawn one by one: they shrink well ------------------------------------------


@st.composite
def drawn_interactions(draw):
    kind = draw(st.sampled_from(list(N_VALUES)))
    return oracle.Interaction(
        item_key=draw(st.sampled_from([0, 1, 1 << 63, (1 << 64) - 1])),
        kind=kind,
        event_time_ms=draw(st.sampled_from([BASE_MS, BASE_MS + 1, BASE_MS + 2])),
        value=draw(st.integers(0, min(2, N_VALUES[kind] - 1))),
    )


# --- logs and states, rolled from a seed: they are large -----------------------------------------


def roll_interaction(rolls, item_keys, n_times):
    """One interaction; few items and times make equal keys, equal times and equal words."""
    kind = rolls.choices(list(N_VALUES), KIND_SHARES)[0]
    value = rolls.choice([0, N_VALUES[kind] - 1, rolls.randrange(N_VALUES[kind])])
    return oracle.Interaction(
        rolls.choice(item_keys), kind, BASE_MS + rolls.randrange(n_times), value
    )


def roll_item_keys(rolls, n_items):
    return [0, (1 << 64) - 1, *(rolls.getrandbits(64) for _ in range(n_items))][:n_items]


@st.composite
def logs(draw):
    """Accepted events of a few users, some of them forgets; often many more than the capacities."""
    rolls = random.Random(draw(seeds))
    n_events, n_items = draw(st.sampled_from([(0, 1), (8, 3), (60, 12), (300, 40), (600, 60)]))
    users = [f"u-{number}" for number in range(draw(st.integers(1, 3)))]
    item_keys = roll_item_keys(rolls, n_items)
    n_times = draw(st.sampled_from([1, 5, 50, 5000]))
    forget_share = draw(st.sampled_from([0.0, 0.01, 0.1]))
    log = []
    for _ in range(n_events):
        user = rolls.choice(users)
        if rolls.random() < forget_share:
            # The guard adds 5 minutes; here a forget falls among the other times, rarely late.
            until_ms = BASE_MS - 1 + int((n_times + 1) * rolls.random() ** 8)
            log.append(oracle.Accepted(user, "forget", forgotten_before_ms=until_ms))
        else:
            interaction = roll_interaction(rolls, item_keys, n_times)
            log.append(oracle.Accepted(user, "play_stop", interaction))
    return log


def roll_state(rolls, item_keys, n_events, n_times=1000, forgotten_before_ms=0):
    events = [roll_interaction(rolls, item_keys, n_times) for _ in range(n_events)]
    return oracle.State().learn(events, forgotten_before_ms)


@st.composite
def states(draw):
    """One user's state, often full, sometimes a tombstone."""
    rolls = random.Random(draw(seeds))
    return roll_state(
        rolls,
        roll_item_keys(rolls, draw(st.integers(1, 60))),
        n_events=draw(st.sampled_from([0, 1, 2, 10, 60, 300])),
        n_times=draw(st.sampled_from([1, 5, 1000])),
        forgotten_before_ms=draw(st.sampled_from([0, 1, BASE_MS + 2, (1 << 48) - 1])),
    )


# --- models --------------------------------------------------------------------------------------


@st.composite
def signals(draw):
    """The defaults, or strengths that anybody might try."""
    if draw(st.booleans()):
        return dict(oracle.SIGNALS)
    strengths = st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5])
    rolled = {name: draw(strengths) for name in oracle.SIGNALS}
    return rolled | {"complete_from": draw(st.sampled_from([0.5, 0.9, 1.0]))}


@st.composite
def models(draw, max_items=120, max_factors=64):
    """An oracle's model and its items' ids; fewer items than factors are common."""
    rolls = np.random.default_rng(draw(seeds))
    n_items = draw(st.integers(1, max_items))
    n_factors = draw(st.one_of(st.sampled_from([1, 2, 3, max_factors]), st.integers(1, 64)))
    scale = draw(st.sampled_from([0.03, 0.3, 3.0]))
    factors = rolls.normal(scale=scale, size=(n_items, n_factors)).astype(np.float32)
    if draw(st.booleans()):
        factors[rolls.integers(n_items)] = 0  # an item that nothing is known of
    item_ids = [f"title-{number}" for number in range(n_items)]
    model = oracle.Model(
        factors=dict(zip(map(oracle.item_key, item_ids), factors, strict=True)),
        alpha=draw(st.sampled_from([0.01, 1.0, 10.0, 1000.0])),
        regularization=draw(st.sampled_from([0.01, 1.0, 300.0])),
        recency_floor=draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])),
        recency_half_life=draw(st.sampled_from([0.5, 5.0, 1000.0])),
        signals=draw(signals()),
    )
    return item_ids, model
