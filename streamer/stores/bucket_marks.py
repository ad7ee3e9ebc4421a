"""The marks of a partition in every bucket, and the one that they amount to. Pure.

Shards fail and forget by themselves, so the marks of one partition may differ. What the store
vouches for is what every bucket vouches for: the smallest. A mark is still moved by compare-and-set
in each bucket, on what was seen there.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamer.pipeline.ports import Mark, MarkMove


def smallest(marks: Sequence[Mark | None]) -> Mark | None:
    """Return what all buckets together vouch for.

    None where a bucket has no mark, or where they count in different topics: offsets of two topics
    cannot be compared. It names the topic where every bucket does, so that one that does not yet
    is told.
    """
    present = [mark for mark in marks if mark is not None]
    ids = {mark.topic_id for mark in present}
    if len(present) < len(marks) or len(ids - {""}) > 1:
        return None
    topic_id = "" if "" in ids else next(iter(ids))
    return Mark(min(mark.next_offset for mark in present), topic_id)


class SeenMarks:
    """What one partition's mark was in each bucket when it was last seen."""

    def __init__(self, n_buckets: int) -> None:
        self._marks: list[Mark | None] = [None] * n_buckets
        self._is_seen = [False] * n_buckets

    def see(self, bucket: int, mark: Mark | None) -> None:
        """Remember a bucket's mark."""
        self._marks[bucket], self._is_seen[bucket] = mark, True

    def smallest(self) -> Mark | None:
        """Return what all buckets together vouch for."""
        return smallest(self._marks)

    def expected(self, move: MarkMove) -> Sequence[Mark | None]:
        """Return what must be stored in each bucket for a move.

        Who asks for it knows the smallest alone. If that is still what was seen, each bucket's own
        is meant; else what was seen is not what the caller knows, and counts for nothing.
        """
        if all(self._is_seen) and move.expected == self.smallest():
            return self._marks
        return [move.expected] * len(self._marks)
