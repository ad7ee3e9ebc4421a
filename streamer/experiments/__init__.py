"""Experiments: who is in which cell, what a cell changes, and what it has shown. Pure."""

from streamer.experiments.allocation import (
    N_SLOTS,
    UNALLOCATED,
    Cell,
    Experiment,
    Parameters,
    SlotRange,
    allocate,
    allocate_many,
    slot_of,
    slots_of,
)
from streamer.experiments.assignments import Assignment, Assignments
from streamer.experiments.catalog import Catalog, Layer, Variant
from streamer.experiments.counting import Additions, Arrival, Book, Counting, Sum
from streamer.experiments.decision import Decision, decide
from streamer.experiments.sequential import BucketSums, Interval, difference, paired_difference

__all__ = [
    "N_SLOTS",
    "UNALLOCATED",
    "Additions",
    "Arrival",
    "Assignment",
    "Assignments",
    "Book",
    "BucketSums",
    "Catalog",
    "Cell",
    "Counting",
    "Decision",
    "Experiment",
    "Interval",
    "Layer",
    "Parameters",
    "SlotRange",
    "Sum",
    "Variant",
    "allocate",
    "allocate_many",
    "decide",
    "difference",
    "paired_difference",
    "slot_of",
    "slots_of",
]
