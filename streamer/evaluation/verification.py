"""What `verify` is given and what it returns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from streamer.evaluation.judgement import BEHIND, DIFFERENT, EQUAL, Stored, Verdict
from streamer.evaluation.log import Log
from streamer.evaluation.selection import EVERYBODY, Sample
from streamer.pipeline.records import Partition
from streamer.pipeline.step import LiveModel

Stage = Literal["reading", "comparing", "settling"]


@dataclass(frozen=True, slots=True)
class Sources:
    """What is compared with what.

    Attributes:
        log: The event topics.
        new_letters: Returns the places of dead letters that it has not returned before.
        marks: Reads the next offset whose effects are surely in Redis, None where nothing is.
        read: Reads users' histories and features, each pair at one moment.
        live: Reads the served model; None compares histories only.
    """

    log: Log
    new_letters: Callable[[], Iterable[tuple[Partition, int]]]
    marks: Callable[[Sequence[Partition]], Mapping[Partition, int | None]]
    read: Callable[[Sequence[str]], Sequence[Stored]]
    live: Callable[[], LiveModel | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Who is verified, and how gently.

    Attributes:
        sample: Which users.
        max_users: So many in memory at once, about 1 kB each, 5 kB at worst.
        users_per_second: Read from Redis at most; None for no limit.
        records_per_second: Read from the log at most; None for no limit.
        rounds: How often users who are not equal are asked again; 1 or more.
        pause_seconds: Before every round but the first; a worker moves its marks once a second.
        expire_after_days: Of users in Redis; 0 if they stay.
        tombstone_days: How long a forgotten user's marker stays.
        n_listed: At most so many of those who are different are named in the result.
    """

    sample: Sample = EVERYBODY
    max_users: int = 100_000
    users_per_second: float | None = None
    records_per_second: float | None = None
    rounds: int = 5
    pause_seconds: float = 1.0
    expire_after_days: float = 0.0
    tombstone_days: float = 0.0
    n_listed: int = 0

    def __post_init__(self) -> None:
        assert self.rounds >= 1, "nobody is judged by the first look alone"


class VerifyProgress(NamedTuple):
    """How far a pass is; in records of the log or in users."""

    pass_number: int
    stage: Stage
    n_done: int
    n_total: int


@dataclass(slots=True)
class Verification:
    """The result over all users that were looked at.

    Attributes:
        n_records: Records of the log that were read, each counted once.
        n_applied: Of these, accepted events without a letter.
        n_rejected: Of these, dead letters.
        n_letters: Offsets with a dead letter, as the dead-letter topics have them.
        n_passes: How often the log was read.
        is_log_cut: The topics no longer hold their first records.
        has_rewound: The marks went down meanwhile.
        n_unvouched: Partitions with records and without a mark: nothing of them need be there.
        verdicts: Number of users by verdict.
        worst_error: Largest relative error of a vector.
        listed: Some of those who are different.
    """

    n_records: int = 0
    n_applied: int = 0
    n_rejected: int = 0
    n_letters: int = 0
    n_passes: int = 0
    is_log_cut: bool = False
    has_rewound: bool = False
    n_unvouched: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    worst_error: float = 0.0
    listed: dict[str, Verdict] = field(default_factory=dict)

    @property
    def n_users(self) -> int:
        """Users that were looked at."""
        return self.verdicts.total()

    @property
    def n_equal(self) -> int:
        """Users for whom Redis is what the log says."""
        return self._count(EQUAL)

    @property
    def n_beyond_log(self) -> int:
        """Users for whom it is, as far back as the log reaches; older evidence is there too."""
        return self._count({Verdict.BEYOND_LOG})

    @property
    def n_behind(self) -> int:
        """Users for whom something may still be under way; nothing vouched for is missing."""
        return self._count(BEHIND)

    @property
    def n_different(self) -> int:
        """Users for whom Redis is not what the log says."""
        return self._count(DIFFERENT)

    @property
    def is_conclusive(self) -> bool:
        """Whether a user who is behind is surely only that: somebody vouches for what was read."""
        return not self.n_behind or not (self.n_unvouched or self.has_rewound)

    def _count(self, verdicts: Iterable[Verdict]) -> int:
        return sum(self.verdicts[verdict] for verdict in verdicts)


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, replaceable in tests; all in seconds, `epoch` since 1970."""

    epoch: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


DEFAULT_OPTIONS: Final = VerifyOptions()
SYSTEM_CLOCK: Final = Clock()
