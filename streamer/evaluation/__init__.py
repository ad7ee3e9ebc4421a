"""Recomputing from the log: is Redis right, and how good would a learner have been?"""

from streamer.evaluation.notebook import replay
from streamer.evaluation.replay_report import Report

__all__ = ["Report", "replay"]
