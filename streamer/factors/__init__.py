"""User factors: item models, learners, and the features that readers get (docs/adr/0001)."""

from streamer.factors.asking import LEARNER_FAULTS, ask
from streamer.factors.blend import blend, unit
from streamer.factors.catalog import (
    BUILT_INS,
    DEFAULT_LEARNER,
    BuiltIn,
    load_learner,
    load_learners,
)
from streamer.factors.conformance import check_learner
from streamer.factors.features import (
    FeatureDtype,
    Features,
    Stamp,
    decode_features,
    decode_many_features,
    encode_features,
    learner_id,
)
from streamer.factors.imported import ImportStamp, decode_imported, encode_imported
from streamer.factors.learner import Learner, UserFactors
from streamer.factors.model import UNKNOWN_ROW, FoldInParams, ItemModel
from streamer.factors.recency_fold_in import RecencyFoldIn
from streamer.factors.signals import Signals, strengths

__all__ = [
    "BUILT_INS",
    "DEFAULT_LEARNER",
    "LEARNER_FAULTS",
    "UNKNOWN_ROW",
    "BuiltIn",
    "FeatureDtype",
    "Features",
    "FoldInParams",
    "ImportStamp",
    "ItemModel",
    "Learner",
    "RecencyFoldIn",
    "Signals",
    "Stamp",
    "UserFactors",
    "ask",
    "blend",
    "check_learner",
    "decode_features",
    "decode_imported",
    "decode_many_features",
    "encode_features",
    "encode_imported",
    "learner_id",
    "load_learner",
    "load_learners",
    "strengths",
    "unit",
]
