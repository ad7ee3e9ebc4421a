"""Learners of somebody's own, sound and otherwise: `own_learners:NAME` in a configuration."""

import numpy as np

from streamer.factors import UserFactors, load_learner
from streamer.history import item_key

BAD_ITEM = "title-that-breaks"


class Sound:
    """Does what the mean of items does, under a name of its own."""

    name = "sound"

    def __call__(self, histories, model):
        return load_learner("mean_of_items")(histories, model)


class ShyOfOneItem(Sound):
    """Raises as soon as anybody has watched one particular item."""

    name = "shy_of_one_item"

    def __call__(self, histories, model):
        if (histories.item_keys == item_key(BAD_ITEM)).any():
            raise ZeroDivisionError("somebody watched it")
        return super().__call__(histories, model)


class Answering(Sound):
    """Gives the answer of a function of (answer, histories, model)."""

    name = "answering"

    def __init__(self, change):
        self.change = change
        self.n_calls = 0

    def __call__(self, histories, model):
        self.n_calls += 1
        return self.change(super().__call__(histories, model), histories, model)


class Constant:
    """A learner whose every number is the given one, per user where it is a list."""

    name = "constant"

    def __init__(self, numbers, *, is_rejected=False, n_vectors=2):
        self.numbers, self.is_rejected, self.n_vectors = numbers, is_rejected, n_vectors

    def __call__(self, histories, model):
        shape = (len(histories), self.n_vectors, model.n_factors)
        numbers = np.broadcast_to(np.reshape(np.float32(self.numbers), (-1, 1, 1)), shape)
        return UserFactors(
            numbers.astype(np.float32),
            np.minimum(histories.counts, 1),
            np.broadcast_to(self.is_rejected, len(histories)).copy(),
        )


class Random(Sound):
    """Answers something else every time."""

    name = "random"

    def __call__(self, histories, model):
        answer = super().__call__(histories, model)
        noise = np.random.default_rng().normal(size=answer.vectors.shape)
        return UserFactors(
            (answer.vectors * noise).astype(np.float32), answer.n_solved, answer.is_rejected
        )
