"""Ten ways to break the guarantees, each a small change of the code, for the length of a block.

A simulation that does not catch every one of them proves nothing.
"""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from streamer.errors import TransientError
from streamer.history import Changes
from streamer.runtime import measuring
from streamer.runtime.loop import WorkerLoop
from streamer.runtime.retrying import Retrying
from streamer.runtime.updater import Report, Updater
from streamer.stores import memory
from streamer.stores.bucket_marks import SeenMarks


def _ends(records):
    return {record.partition: record.offset + 1 for record in records}


def offsets_before_the_write():
    """Offsets are stored when the batch was polled, not when it was written."""
    learn = WorkerLoop._learn

    def mutant(self, records):
        self._source.store_offsets(_ends(records))
        learn(self, records)

    return patch.object(WorkerLoop, "_learn", mutant)


def mark_before_its_data():
    """The mark moves past a batch that is about to be written."""
    learn = WorkerLoop._learn

    def mutant(self, records):
        epochs = self._checkpoints.epochs()
        for partition, next_offset in _ends(records).items():
            self._checkpoints.applied(partition, epochs.get(partition), next_offset, None)
        self._save()
        learn(self, records)

    return patch.object(WorkerLoop, "_learn", mutant)


def skipped_retry():
    """A write that failed counts as done."""
    until_done = Retrying.until_done

    def mutant(self, call, on_forgotten, **options):
        def once():
            try:
                return call()
            except TransientError:
                return Report()

        return until_done(self, once, on_forgotten, **options)

    return patch.object(Retrying, "until_done", mutant)


def unconditional_set():
    """The store sets without comparing."""

    class Anything(bytes):
        def __ne__(self, other):
            return False

        __hash__ = bytes.__hash__

    return patch.object(memory, "stored_digest", lambda _: Anything())


def dropped_delivery_report():
    """A letter counts as safe when it was handed to the producer."""

    def mutant(self, rejected):
        self._dead_letters.send(rejected)
        self._observer.dead_lettered(rejected)

    return patch.object(WorkerLoop, "_bury", mutant)


def cached_history_merged():
    """On a conflict, the batch is merged into the history that the worker believed in."""
    attempt, mended = Updater._attempt, Updater._mended

    def remembering(self, user_ids, known, *more):
        self.believed = dict(zip(user_ids, range(len(user_ids)), strict=True)), known
        return attempt(self, user_ids, known, *more)

    def mutant(self, user_ids, *stored):
        fresh = mended(self, user_ids, *stored)
        row_of, known = getattr(self, "believed", ({}, None))
        for row, user_id in enumerate(user_ids):
            if user_id in row_of:
                fresh.histories.put([row], known.histories.take([row_of[user_id]]))
        return fresh

    @contextmanager
    def both():
        with (
            patch.object(Updater, "_attempt", remembering),
            patch.object(Updater, "_mended", mutant),
        ):
            yield

    return both()


def one_shard_vouches_for_all():
    """What one shard vouches for counts, whatever another one has forgotten."""
    return patch.object(SeenMarks, "smallest", lambda self: self._marks[0])


def page_claimed_and_dropped():
    """Whoever claims a page of the sweep folds nobody in."""
    return patch.object(Updater, "fold_in", lambda *_: Report())


def counted_without_its_write():
    """Sums gain although the history met a conflict."""
    add = memory.MemoryState._add

    def mutant(self, writes, written):
        add(self, writes, set(range(len(writes.user_ids))))

    return patch.object(memory.MemoryState, "_add", mutant)


def whatever_arrives_counts():
    """Each arrival is a step, as it is for who counts the log."""

    def mutant(_, arrived):
        n = len(arrived.rows)
        return Changes(np.ones(n, bool), np.zeros(n, np.uint64))

    return patch.object(measuring, "changes", mutant)


MUTANTS = [
    counted_without_its_write,
    whatever_arrives_counts,
    offsets_before_the_write,
    mark_before_its_data,
    skipped_retry,
    unconditional_set,
    dropped_delivery_report,
    cached_history_merged,
    one_shard_vouches_for_all,
    page_claimed_and_dropped,
]
