"""The ports: what the loop needs from the world, as Protocols. Adapters pass one contract each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streamer.pipeline.records import Partition, Record, Rejected
from streamer.pipeline.step import UserWrites
from streamer.pipeline.sweep import StoredUsers


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What became of a batch of compare-and-sets.

    Attributes:
        conflicts: Row → what the store holds instead (None: nothing); these rows are unwritten.
        foreign: Rows, among the conflicts, whose key holds something that is no string at all.
        n_superseded: Features refused because the store holds some of a higher generation.
        n_quarantined: Features of an unknown form that were moved aside.
        n_bytes: Bytes of the values sent.
    """

    conflicts: Mapping[int, bytes | None]
    foreign: frozenset[int]
    n_superseded: int
    n_quarantined: int
    n_bytes: int


class Mark(NamedTuple):
    """What the store vouches for: it has the effects of every record below an offset.

    Attributes:
        next_offset: The offset.
        topic_id: Of the topic that it counts in; a topic that was deleted and made anew under the
            same name has another. Empty while the broker has told none.
    """

    next_offset: int
    topic_id: str = ""


class MarkMove(NamedTuple):
    """A compare-and-set of one partition's mark.

    Attributes:
        expected: What must be stored for the mark to be set; None is "no mark".
        wanted: What to set; None only asks what is stored.
    """

    expected: Mark | None
    wanted: Mark | None


class Standing(NamedTuple):
    """Where Kafka says that a partition stands.

    Attributes:
        committed: The group's committed offset, None where it has none.
        earliest: The first offset that the topic still has.
    """

    committed: int | None
    earliest: int


class FeatureStore(Protocol):
    """Where histories and features live. Every call raises StoreUnavailable and may be repeated."""

    def read_histories(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """Return each user's stored history, None where there is none."""
        ...

    def write(self, writes: UserWrites) -> WriteOutcome:
        """Write histories and features of every user whose stored digest is the expected one.

        History and features of one user change together. Without an answer, any part of the
        batch may have been written.

        Raises:
            StoreForgot: Writes acknowledged to this object are gone where these were to go, and
                nothing was written there. The next call starts anew.
        """
        ...

    def quarantine(self, user_id: str, value: bytes | None) -> None:
        """Move a broken history aside, if the store still holds that value (None: no string)."""
        ...

    def move_marks(self, moves: Mapping[Partition, MarkMove]) -> dict[Partition, Mark | None]:
        """Set each mark whose stored value is the expected one; return what is stored then.

        Raises:
            StoreForgot: Writes acknowledged to this object are gone; no mark that vouches for
                them was set.
        """
        ...

    def read_marks(self, partitions: Sequence[Partition]) -> dict[Partition, Mark | None]:
        """Return each partition's mark, None where there is none."""
        ...

    def write_fresh(self, fresh_ms: Mapping[Partition, int]) -> None:
        """Publish, by partition, the time before which everything appended is readable."""
        ...


class Place(NamedTuple):
    """What the store knows of the sweep of one of its parts.

    Attributes:
        server: The process that has the part, and which users it has: cursors of one mean nothing
            in another.
        n_keys: Keys of all kinds in the part.
        state: What was claimed last, None for nothing.
    """

    server: str
    n_keys: int
    state: bytes | None


class UserScan(Protocol):
    """Goes through everybody in the store. Every call raises StoreUnavailable and may be repeated.

    A store has one part or several, each with users of its own.
    """

    def parts(self) -> Sequence[str]:
        """Return the parts as they are known now."""
        ...

    def look(self, part: str, variant: str) -> Place:
        """Return where the sweep of a part stands."""
        ...

    def scan(self, part: str, variant: str, cursor: str, n_keys: int) -> StoredUsers:
        """Return the users of the next keys, about `n_keys` of all kinds, with their values."""
        ...

    def claim(self, variant: str, server: str, expected: bytes | None, wanted: bytes) -> bool:
        """Set the state of a server if it is the expected one; return whether it was.

        States of lower generations are dropped with it, also those of other servers.
        """
        ...


class GroupListener(Protocol):
    """Is told about the group, on the thread that polls, from inside `poll` and `wait`."""

    def on_assigned(self, partitions: Sequence[Partition]) -> None:
        """These are ours now; they are paused, until somebody resumes them."""
        ...

    def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """These go to another member when this returns; offsets may still be stored."""
        ...

    def on_lost(self, partitions: Sequence[Partition]) -> None:
        """These are another member's already; storing offsets would be wrong."""
        ...

    def on_error(self, code: str, *, is_fatal: bool) -> None:
        """The client reports an error; it goes on trying unless it is fatal."""
        ...


class RecordSource(Protocol):
    """A member of a consumer group. Every call may raise BrokerUnavailable and be repeated.

    Rebalances happen inside `poll` and `wait`, on the same thread.
    """

    @property
    def owned(self) -> frozenset[Partition]:
        """The partitions that are ours now."""
        ...

    def subscribe(self, listener: GroupListener) -> None:
        """Join the group; partitions come later, through `listener`."""
        ...

    def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """Return what has arrived, in order by partition; waits only while there is nothing."""
        ...

    def wait(self, timeout_seconds: float) -> None:
        """Stay a member of the group without taking records; they come with a later `poll`."""
        ...

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Deliver nothing from these until they are resumed."""
        ...

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Deliver from these again."""
        ...

    def standings(self, partitions: Sequence[Partition]) -> dict[Partition, Standing]:
        """Ask where partitions stand; one of which the broker knows nothing now is left out."""
        ...

    def topic_ids(self) -> Mapping[str, str]:
        """Return each topic's id as the broker told it last; asks again in the background."""
        ...

    def seek(self, partition: Partition, next_offset: int | None) -> None:
        """Go on from `next_offset`, None for the earliest."""
        ...

    def lower_commit(self, partition: Partition, next_offset: int) -> None:
        """Commit an offset below the committed one; the background commit would not."""
        ...

    def store_offsets(self, next_offsets: Mapping[Partition, int]) -> None:
        """Let the background commit have these; partitions that are not ours are dropped."""
        ...

    def close(self) -> None:
        """Commit what is stored and leave the group."""
        ...


class DeadLetters(Protocol):
    """Where rejected records go."""

    def send(self, rejected: Sequence[Rejected]) -> None:
        """Hand letters to the producer; they count once `is_delivered` says so."""
        ...

    def is_delivered(self, timeout_seconds: float) -> bool:
        """Wait for delivery reports; true when every letter sent so far is safe.

        Raises:
            BrokerUnavailable: Some were refused; they are sent again by the next call.
        """
        ...
