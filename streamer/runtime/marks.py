"""What a mark means for a partition: where to begin, and whether the store has forgotten. Pure."""

from __future__ import annotations

from typing import Final

from streamer.pipeline.ports import Mark, MarkMove, Standing

MARK_MISSING: Final = "mark_missing"
MARK_BEHIND: Final = "mark_behind"


def start_of(vouched: int | None, standing: Standing) -> tuple[int, str | None]:
    """Return where to read from, and why that is a rewind, if the store vouches for too little.

    Args:
        vouched: The mark's offset; None where there is no mark of this topic.
        standing: Where Kafka says that the partition stands.
    """
    earliest, committed = standing.earliest, standing.committed
    if committed is None:
        return earliest, None  # Kafka has never heard of this group: everything is yet to be read
    if vouched is None:
        return earliest, MARK_MISSING
    if vouched < committed:
        return max(vouched, earliest), MARK_BEHIND
    return max(committed, earliest), None


def is_behind(stored: Mark | None, move: MarkMove) -> bool:
    """Whether the store, asked to move a mark, holds less than this worker has put there."""
    if move.expected is None or stored == (move.wanted or move.expected):
        return False  # nothing was put there, or it is there; also where it lowers the mark
    return stored is None or (
        is_same_id(stored.topic_id, move.expected.topic_id)
        and stored.next_offset < move.expected.next_offset
    )


def is_same_id(known: str, told: str) -> bool:
    """Compare two topic ids; one that nobody has told yet is taken to be the same."""
    return not known or not told or known == told
