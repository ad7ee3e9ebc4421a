"""Recomputing from the log: is Redis right, and how good would a learner have been?"""

from streamer.evaluation.trial.notebook import replay
from streamer.evaluation.trial.report import Report

__all__ = ["Report", "replay"]
