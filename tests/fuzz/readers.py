"""A reader over values of any bytes: what a request meets when somebody else wrote to Redis."""

import struct

import numpy as np
from worlds import NOW_MS, live_model

from streamer.factors import (
    DEFAULT_LEARNER,
    FeatureDtype,
    UserFactors,
    encode_features,
    load_learner,
)
from streamer.factors.features import Stamp
from streamer.history import HistoryBatch, Interactions, decode, digests, encode, merge, pack_word
from streamer.reader.conversation import hold
from streamer.reader.draft import Moment
from streamer.reader.live_model import ServedModel
from streamer.reader.ranking import rank_rows, score, top_k_many
from streamer.reader.reading import Reading, with_histories
from streamer.stores.keys import features_key, history_key

LEARNER = load_learner(DEFAULT_LEARNER)
SERVED = ServedModel(live_model().model, 1).prepare(LEARNER)
WITH_MODEL = Moment(SERVED, 0.5, is_stale=False)
WITHOUT_MODEL = Moment(None, None, is_stale=True)
TITLES = ["title-1", "title-2", "nobody knows it"]


VALUES = {}
READING = Reading("default", LEARNER)


def read_values(keys):
    """Answer as Redis; there is nothing to be slow or away."""
    return [VALUES.get(key) for key in keys]


def read_hostile_values(features, history):
    """Read the viewer with these values between two sound ones, in every way there is.

    Yields:
        Each read of that viewer, and whether its vectors must be of the reader's own model. What
        the model ranks for it was asked for too, and the neighbors' reads were the usual ones.
    """
    VALUES[features_key("default", "u-1")] = features
    VALUES[history_key("u-1")] = history
    VALUES.update(NEIGHBOR)
    for moment in (WITH_MODEL, WITHOUT_MODEL):
        vectors = None
        for check_history in (False, True):
            conversation = READING.read(["u-0", "u-1", "u-0"], moment, check_history=check_history)
            before, read, after = hold(conversation, read_values)
            for neighbor in (before, after):
                assert neighbor.error is None
                assert neighbor.vectors is not None
            if read.error == "broken_history":  # it takes no good features away
                np.testing.assert_equal(read.vectors, vectors)
            vectors = read.vectors
            yield read, moment is WITH_MODEL
            rank(read)


def ours(features):
    """Return the features with the id of the reader's model: then only they can be judged."""
    model_id = struct.pack("<Q", SERVED.model.model_id)
    return features[:8].ljust(8, b"\0") + model_id + features[16:]


def rank(read):
    [read] = hold(with_histories([read]), read_values)
    [best] = top_k_many([read], 5, NOW_MS, exclude_seen=True)
    assert np.isfinite(best.scores).all()
    assert len(best.item_ids) == len(best.scores) <= 5
    assert not np.isnan(score(read, TITLES, NOW_MS)).any()
    assert set(rank_rows(read, {"a": TITLES, "b": []}, NOW_MS)) == {"a", "b"}


def sound_values():
    """Return features and history of a viewer who has played two titles."""
    keys = SERVED.model.item_keys[:2]
    words = [pack_word(NOW_MS - age_ms, 200, 1) for age_ms in (1, 2)]
    arrived = Interactions(
        np.zeros(2, np.intp), keys, np.array(words, np.uint64), np.zeros(1, np.uint64)
    )
    histories, _ = merge(HistoryBatch.empty(1), arrived)
    [history] = encode(histories, digests(histories))
    vectors = np.arange(16, dtype=np.float32).reshape(1, 2, 8) / 8
    factors = UserFactors(vectors, np.array([2], np.int64), np.zeros(1, bool))
    stamp = Stamp(SERVED.model.model_id, 1, 11, FeatureDtype.F16, NOW_MS)
    _, history_digests, _ = decode([history])
    [features], _ = encode_features(
        factors, history_digests, np.array([NOW_MS]), np.array([2]), stamp
    )
    return features, history


NEIGHBOR = dict(
    zip([features_key("default", "u-0"), history_key("u-0")], sound_values(), strict=True)
)
