"""From an interval to a word: better, worse, or not yet."""

from __future__ import annotations

from enum import StrEnum

from streamer.experiments.sequential import Interval


class Decision(StrEnum):
    """What an experiment has shown about a cell, or a variant, against its control."""

    BETTER = "better"
    WORSE = "worse"
    NOT_YET = "no decision yet"


def decide_less(interval: Interval | None, margin: float = 0.0) -> Decision:
    """As `decide`, of a metric that is better the smaller it is."""
    if interval is None:
        return Decision.NOT_YET
    turned = Interval(-interval.estimate, -interval.upper, -interval.lower, interval.standard_error)
    return decide(turned, margin)


def decide(interval: Interval | None, margin: float = 0.0) -> Decision:
    """Say what an interval shows; it may be asked at every look, and the first answer stands.

    Args:
        interval: A confidence sequence at this moment; None is too little data.
        margin: How much better or worse is worth a word, in the metric's unit; >= 0.
    """
    assert margin >= 0, margin
    if interval is None:
        return Decision.NOT_YET
    if interval.lower > margin:
        return Decision.BETTER
    if interval.upper < -margin:
        return Decision.WORSE
    return Decision.NOT_YET
