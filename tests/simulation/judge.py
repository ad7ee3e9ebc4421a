"""What must hold at every step, and what must be there in the end."""

import struct
from collections import Counter

import numpy as np
import oracle
from outcome_oracle import latest
from simulation.broker import verdict_of
from simulation.worker import START_MS

from streamer.factors import decode_features
from streamer.history import decode

CAPACITY = {kind: (kinds, capacity) for kinds, capacity in oracle.GROUPS for kind in kinds}


class Wrong(AssertionError):
    """An invariant does not hold."""


def ensure(condition, *facts):
    if not condition:
        raise Wrong(" ".join(map(str, facts)))


class Judge:
    """Holds the world against the guarantees."""

    def __init__(self, world):
        self._world = world
        self._reflected = {}
        """(partition, topic id) → all records below are surely reflected, until it forgets."""
        self._vouched = {}
        """Partition → the highest mark that there ever was."""

    def forgot(self):
        """The store has gone back in time; what is reflected must be looked up again."""
        self._reflected.clear()

    def on_marks(self, before):
        """A mark vouches for everything below it, at the moment at which it is set."""
        for partition, mark in self._world.state.marks.items():
            if mark == before.get(partition):
                continue
            self._vouched[partition] = max(self._vouched.get(partition, 0), mark.next_offset)
            if mark.topic_id in self._ids_that_count(partition):
                self._ensure_reflected(partition, mark.next_offset, "a mark vouches for")

    def on_stored(self, partition, next_offset):
        """No offset is stored before a mark vouched for it, which was set after the write."""
        vouched = self._vouched.get(partition, 0)
        ensure(next_offset <= vouched, partition, "stored", next_offset, "vouched", vouched)

    def on_fresh(self, fresh_ms):
        """Whatever was appended before the time that is published is readable."""
        if self._world.may_forget or self._world.may_recreate:
            return  # between the loss and its discovery, a second at most, it is wrong
        for partition, before_ms in fresh_ms.items():
            log = self._world.broker.log(partition)
            n_before = sum(record.timestamp_ms < before_ms for record in log)
            self._ensure_reflected(partition, n_before, "it is published as fresh to")

    def _ids_that_count(self, partition):
        """A mark of an earlier life vouches for nothing; one without an id may be of either."""
        topic_id = self._world.broker.topics[partition.topic].topic_id
        return {topic_id} if self._world.may_recreate else {topic_id, ""}

    def _ensure_reflected(self, partition, next_offset, why):
        broker = self._world.broker
        log = broker.log(partition)
        ensure(next_offset <= len(log), partition, why, next_offset, "of", len(log))
        key = partition, broker.topics[partition.topic].topic_id
        known = self._reflected.get(key, 0)
        for record in log[known:next_offset]:
            ensure(self._is_reflected(record), partition, why, next_offset, "lacks", record)
        self._reflected[key] = max(known, next_offset)

    def _is_reflected(self, record):
        accepted = verdict_of(record.value, record.timestamp_ms)
        if accepted is None:
            place = record.partition, record.offset, record.value
            return place in self._world.broker.letters
        stored = self._world.state.values.get(oracle.history_key(accepted.user_id))
        return holds(stored, accepted)

    # in the end

    def on_end_of_process(self, worker):
        """consumed = applied + dead-lettered + abandoned, but for a killed one's batch in hand."""
        consumed, *outcomes = worker.counts()
        in_flight = consumed - sum(outcomes)
        most = worker.batch_records if worker.was_killed else 0
        ensure(0 <= in_flight <= most, worker.name, "consumed", consumed, "outcomes", outcomes)

    def on_quiet(self):
        """Histories, features, commits and dead letters are what the log says."""
        broker, values = self._world.broker, self._world.state.values
        golden = golden_histories(broker.verdicts)
        found = {key: value for key, value in values.items() if key.startswith("st:h:")}
        for key in golden.keys() | found.keys():
            ensure(golden.get(key) == found.get(key), key, "differs from the golden merge")
        for partition, end in broker.ends().items():
            for record in broker.log(partition):
                accepted = verdict_of(record.value, record.timestamp_ms)
                ensure(accepted or self._is_reflected(record), "no dead letter for", record)
            ensure(self._world.state.marks[partition].next_offset == end, partition, "mark")
            self._ensure_reflected(partition, end, "in the end")
        self._ensure_features(found)
        self._ensure_sums(broker.verdicts)

    def _ensure_sums(self, verdicts):
        """Users count once, and thumbs as they stand; in any order, whatever came again."""
        of_user = {}
        for accepted in filter(None, verdicts):
            of_user.setdefault(accepted.user_id, []).append(accepted)
        wanted, n_uncertain = Counter(), Counter()
        for user_id, events in of_user.items():
            bucket, (state,) = oracle.bucket(user_id), oracle.replay(events).values()
            wanted[bucket, "users"] += latest(state) >= START_MS
            thumbs = [each for each in events if "thumb" in each.type]
            n_titles = len({each.interaction.item_key for each in thumbs})
            is_whole = not state.forgotten_before_ms and n_titles <= CAPACITY[oracle.THUMB][1]
            n_uncertain[bucket] += not is_whole
            for entry in state.entries.values():
                if entry.kind == oracle.THUMB and entry.event_time_ms >= START_MS:
                    wanted[bucket, {2: "thumbs_up", 1: "thumbs_down", 0: ""}[entry.value]] += 1
        for user_id in of_user:
            bucket = oracle.bucket(user_id)
            key = f"st:sum:{{{bucket}}}:all:{START_MS // 1000}"
            sums = self._world.state.sums.get(key, {})
            names = ["users"] if n_uncertain[bucket] else ["users", "thumbs_up", "thumbs_down"]
            for name in names:
                found = sums.get(f"everybody/{name}", 0)
                ensure(found == wanted[bucket, name], key, name, found, wanted[bucket, name])

    def _ensure_features(self, histories):
        live = self._world.live
        keys = [key for key, value in histories.items() if len(value) > 24]
        batch, digests, is_broken = decode([histories[key] for key in keys])
        ensure(not is_broken.any(), "a broken history")
        vectors = live.learner(batch, live.model).vectors
        for row, key in enumerate(keys):
            value = self._world.state.values.get(features_of(key, live.variant))
            features = value and decode_features(value)
            ensure(features is not None, key, "has no features")
            ensure(features.generation == live.generation, key, features.generation)
            ensure(features.model_id == live.model.model_id, key, "another model")
            ensure(features.history_digest == int(digests[row]), key, "another history")
            ensure(np.allclose(features.vectors, vectors[row], 1e-5, 1e-7), key, "other vectors")
        wanted = {features_of(key, live.variant) for key in keys}
        found = {key for key in self._world.state.values if key.startswith("st:f:")}
        ensure(found == wanted, "features of somebody who was forgotten:", found - wanted)


def golden_histories(verdicts):
    """Return the oracle's merge of all accepted events, as {key: bytes}."""
    interactions, forgotten = {}, {}
    for accepted in filter(None, verdicts):
        if accepted.interaction:
            interactions.setdefault(accepted.user_id, []).append(accepted.interaction)
        elif accepted.forgotten_before_ms:
            until_ms = max(accepted.forgotten_before_ms, forgotten.get(accepted.user_id, 0))
            forgotten[accepted.user_id] = until_ms
    golden = {}
    for user_id in interactions.keys() | forgotten.keys():
        state = oracle.State().learn(interactions.get(user_id, ()), forgotten.get(user_id, 0))
        if state.entries or state.forgotten_before_ms:
            golden[oracle.history_key(user_id)] = state.to_bytes()
    return golden


def holds(stored, accepted):
    """Whether merging an accepted event into a stored history would change nothing."""
    interaction, until_ms = accepted.interaction, accepted.forgotten_before_ms
    if interaction is None and until_ms is None:
        return True
    if stored is None:
        return False
    (forgotten_before_ms,) = struct.unpack_from("<Q", stored, 16)
    if interaction is None:
        return forgotten_before_ms >= until_ms
    if interaction.event_time_ms <= forgotten_before_ms:
        return True
    kinds, capacity = CAPACITY[interaction.kind]
    group = [entry for entry in oracle.read_entries(stored) if entry.kind in kinds]
    for entry in group:
        if (entry.item_key, entry.kind) == (interaction.item_key, interaction.kind):
            return entry.word >= interaction.word
    oldest = min((entry.word, entry.item_key) for entry in group) if group else (0, 0)
    return len(group) == capacity and oldest > (interaction.word, interaction.item_key)


def features_of(key, variant):
    """Return the key of a user's features, from that of the history."""
    bucket, user_id = key.removeprefix("st:h:").split(":", 1)
    return f"st:f:{bucket}:{variant}:{user_id}"
