"""Reading a stretch of the log again, by hand: lower the marks, and whoever owns them goes back.

Nothing else need be done. A running worker finds its mark behind what it wrote, as after a
fail-over; a worker that starts finds it behind the committed offset. Merging again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from streamer.errors import StoreUnavailable
from streamer.pipeline.ports import FeatureStore, Mark, MarkMove
from streamer.pipeline.records import Partition

MAX_ROUNDS: Final = 100
"""A running worker moves its marks once a second, so two rounds are the rule."""


class Lowered(NamedTuple):
    """What became of one partition's mark.

    Attributes:
        before: What it vouched for; None where there is none: it is read from its beginning anyway.
        after: What it vouches for now.
    """

    before: int | None
    after: int | None

    @property
    def n_records(self) -> int:
        """How many records are read again."""
        return 0 if self.before is None or self.after is None else self.before - self.after


def lower_marks(
    store: FeatureStore, next_offsets: Mapping[Partition, int], *, is_dry_run: bool = False
) -> dict[Partition, Lowered]:
    """Lower each partition's mark to an offset; a mark that is lower already stays.

    Raises:
        StoreUnavailable: Redis did not answer, or somebody moves the marks all the time; what was
            lowered until then stays so.
    """
    lowered: dict[Partition, Lowered] = {}
    left = dict(next_offsets)
    for _ in range(MAX_ROUNDS):
        marks = store.read_marks(list(left))
        moves: dict[Partition, MarkMove] = {}
        for partition, mark in marks.items():
            if mark is None or mark.next_offset <= left[partition]:
                now = mark and mark.next_offset
                lowered[partition] = Lowered(now, now)
            elif is_dry_run:
                lowered[partition] = Lowered(mark.next_offset, left[partition])
            else:
                wanted = mark._replace(next_offset=left[partition])
                moves[partition] = MarkMove(mark, wanted)
        for partition, stored in store.move_marks(moves).items():
            before, after = moves[partition]
            assert isinstance(before, Mark)
            if stored == after:
                lowered[partition] = Lowered(before.next_offset, left[partition])
        left = {p: offset for p, offset in left.items() if p not in lowered}
        if not left:
            return {partition: lowered[partition] for partition in next_offsets}
    raise StoreUnavailable(
        f"{len(left)} marks are moved by somebody else all the time", kind="conflicts"
    )
