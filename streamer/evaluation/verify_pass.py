"""One pass of a verification: the log once, every user of a range, and the doubtful ones again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from streamer.evaluation.expected import Expected
from streamer.evaluation.golden import batches
from streamer.evaluation.judgement import (
    DIFFERENT,
    Horizons,
    Stored,
    Verdict,
    combine,
    judge_features,
    judge_histories,
)
from streamer.evaluation.letter_offsets import LetterOffsets
from streamer.evaluation.pace import Pace
from streamer.evaluation.verification import (
    Clock,
    Sources,
    Stage,
    Verification,
    VerifyOptions,
    VerifyProgress,
)
from streamer.events import MAX_AHEAD_MS
from streamer.history import HistoryBatch, digests, encode
from streamer.pipeline.records import Partition
from streamer.pipeline.step import LiveModel

CHUNK_USERS: Final = 1000
CHUNKS_PER_SECOND: Final = 5
"""At least, when the rate is limited: short reads disturb nobody."""
UNSETTLED: Final = DIFFERENT | {Verdict.HISTORY_BEHIND}
DAY_MS: Final = 86_400_000


class VerifyPass:
    """One reading of the log, for the users of one range."""

    def __init__(
        self,
        sources: Sources,
        options: VerifyOptions,
        clock: Clock,
        result: Verification,
        on_progress: Callable[[VerifyProgress], object],
    ) -> None:
        self._sources, self._options = sources, options
        self._clock, self._result, self._on_progress = clock, result, on_progress
        self._records_pace = Pace(options.records_per_second, clock.monotonic, clock.sleep)
        self._users_pace = Pace(options.users_per_second, clock.monotonic, clock.sleep)
        self._vouched: dict[Partition, int] = {}
        """What the expectation takes as vouched for, up to here."""
        self._read: dict[Partition, int] = {}
        """What was read of the log, up to here."""
        self._horizons = Horizons()

    def run(self, expected: Expected, letters: LetterOffsets) -> int:
        """Judge every user of the range, and return how many there are."""
        self._expected, self._letters = expected, letters
        self._scan()
        user_ids = expected.user_ids
        suspects = self._compare(user_ids)
        expected.narrow(suspects)
        self._settle(suspects)
        return len(user_ids)

    def _scan(self) -> None:
        """Read the whole log as it is now."""
        log, expected = self._sources.log, self._expected
        marks = self._marks(list(log.bounds()))
        self._letters.add(self._sources.new_letters())
        bounds = log.bounds()
        start = {partition: bound.low for partition, bound in bounds.items()}
        self._read_log(start, {partition: bound.high for partition, bound in bounds.items()}, marks)
        self._vouch(marks)
        with_records = [p for p, bound in bounds.items() if bound.low < bound.high]
        self._result.n_unvouched = sum(marks.get(p) is None for p in with_records)
        expected.finish()
        gone_until_ms = log.gone_until_ms()
        now_ms = int(self._clock.epoch() * 1000)
        days, tombstone_days = self._options.expire_after_days, self._options.tombstone_days
        self._horizons = Horizons(
            log_ms=gone_until_ms + MAX_AHEAD_MS if gone_until_ms else 0,
            # Evidence, and what is forgotten, may be dated ahead of the write that lets it expire.
            expiry_ms=int(now_ms - days * DAY_MS) + MAX_AHEAD_MS if days else 0,
            tombstone_ms=int(now_ms - tombstone_days * DAY_MS) + MAX_AHEAD_MS
            if tombstone_days
            else 0,
        )
        result = self._result
        result.is_log_cut |= gone_until_ms > 0
        if result.n_passes == 1:
            result.n_records = expected.n_records
            result.n_applied, result.n_rejected = expected.n_applied, expected.n_rejected

    def _compare(self, user_ids: Sequence[str]) -> list[str]:
        """Count everybody who is plainly equal, and return the others."""
        suspects: list[str] = []
        for chunk, values in self._read_users(user_ids, "comparing"):
            live = self._sources.live()  # after the features, which cannot be newer then
            said = self._expected.bounds(chunk).said
            pairs = zip(values, encode(said, digests(said)), strict=True)
            is_equal = np.array([history == ours for (history, _), ours in pairs], bool)
            suspects += [chunk[row] for row in np.flatnonzero(~is_equal).tolist()]
            equal = np.flatnonzero(is_equal)
            verdicts = self._judge_features(
                [values[row] for row in equal.tolist()], said.take(equal), live
            )
            for row, verdict in zip(equal.tolist(), verdicts, strict=True):
                if verdict in UNSETTLED:
                    suspects.append(chunk[row])
                else:
                    self._count(chunk[row], verdict)
        return suspects

    def _settle(self, suspects: Sequence[str]) -> None:
        """Ask again until everything has been found, or often enough."""
        for number in range(1, self._options.rounds + 1):
            if not suspects:
                return
            if number > 1:
                self._clock.sleep(self._options.pause_seconds)
            verdicts = self._ask_again(suspects)
            is_last = number == self._options.rounds
            unsettled = []
            for user_id, verdict in zip(suspects, verdicts, strict=True):
                if verdict in UNSETTLED and not is_last:
                    unsettled.append(user_id)
                else:
                    self._count(user_id, verdict)
            suspects = unsettled
            self._expected.narrow(suspects)

    def _count(self, user_id: str, verdict: Verdict) -> None:
        result = self._result
        result.verdicts[verdict] += 1
        if verdict in DIFFERENT and len(result.listed) < self._options.n_listed:
            result.listed[user_id] = verdict

    def _ask_again(self, user_ids: Sequence[str]) -> list[Verdict]:
        """Judge these users by what is now: first the marks, then Redis, then the log's end."""
        marks = self._marks(list(self._read))
        is_rewound = any(marks.get(p, 0) < offset for p, offset in self._vouched.items())
        self._result.has_rewound |= is_rewound
        chunks = list(self._read_users(user_ids, "settling"))
        bounds = self._sources.log.bounds()
        self._letters.add(self._sources.new_letters())
        live = self._sources.live()
        # What was under way when it was read, and is vouched for now; then what is new.
        again = {p: min(marks.get(p, 0), offset) for p, offset in self._read.items()}
        self._read_log(dict(self._vouched), again, marks)
        start = {p: max(self._read.get(p, bound.low), bound.low) for p, bound in bounds.items()}
        self._read_log(start, {p: bound.high for p, bound in bounds.items()}, marks)
        self._vouch(marks)
        verdicts: list[Verdict] = []
        for chunk, values in chunks:
            verdicts += self._judge(chunk, values, live, is_rewound=is_rewound)
        return verdicts

    def _judge(
        self,
        user_ids: Sequence[str],
        values: Sequence[Stored],
        live: LiveModel | None,
        *,
        is_rewound: bool,
    ) -> list[Verdict]:
        verdicts, histories = judge_histories(
            [history for history, _ in values],
            self._expected.bounds(user_ids),
            self._horizons,
            is_rewound=is_rewound,
        )
        of_features = self._judge_features(values, histories, live)
        return [combine(*pair) for pair in zip(verdicts, of_features, strict=True)]

    def _judge_features(
        self, values: Sequence[Stored], histories: HistoryBatch, live: LiveModel | None
    ) -> list[Verdict]:
        if live is None:
            return [Verdict.EQUAL] * len(values)
        verdicts, worst = judge_features([features for _, features in values], histories, live)
        self._result.worst_error = max(self._result.worst_error, worst)
        return verdicts

    def _marks(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        marks = self._sources.marks(partitions)
        return {partition: mark for partition, mark in marks.items() if mark is not None}

    def _vouch(self, marks: Mapping[Partition, int]) -> None:
        for partition, end in self._read.items():
            mark = min(marks.get(partition, 0), end)
            self._vouched[partition] = max(self._vouched.get(partition, 0), mark)

    def _read_log(
        self,
        start: Mapping[Partition, int],
        until: Mapping[Partition, int],
        marks: Mapping[Partition, int],
    ) -> None:
        total = sum(max(until[p] - start.get(p, 0), 0) for p in until)
        n_done = 0
        for batch in batches(self._sources.log.read(start, until)):
            self._records_pace.spend(len(batch))
            self._expected.apply(batch, marks)
            n_done += len(batch)
            self._tell("reading", n_done, total)
        for partition, end in until.items():
            self._read[partition] = max(self._read.get(partition, 0), end)

    def _read_users(
        self, user_ids: Sequence[str], stage: Stage
    ) -> Iterator[tuple[Sequence[str], Sequence[Stored]]]:
        rate = self._options.users_per_second
        size = CHUNK_USERS if rate is None else int(rate / CHUNKS_PER_SECOND)
        size = min(max(size, 1), CHUNK_USERS)
        for first in range(0, len(user_ids), size):
            chunk = user_ids[first : first + size]
            self._users_pace.spend(len(chunk))
            yield chunk, self._sources.read(chunk)
            self._tell(stage, first + len(chunk), len(user_ids))

    def _tell(self, stage: Stage, n_done: int, n_total: int) -> None:
        self._on_progress(VerifyProgress(self._result.n_passes, stage, n_done, n_total))
