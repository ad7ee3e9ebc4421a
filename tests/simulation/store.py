"""A worker's connection to the store, on which replies get lost and calls arrive late."""

from streamer.errors import StoreForgot, StoreUnavailable
from streamer.pipeline.ports import FeatureStore, MarkMove, Place, UserScan
from streamer.stores import MemoryScan, MemoryStore
from streamer.stores.bucket_marks import SeenMarks
from streamer.stores.write_call import joined

TIMEOUT_SECONDS = 1.0


class SimStore(FeatureStore):
    """A writer of each shard; a batch is several script calls, as in the real stores."""

    def __init__(self, world):
        self._world = world
        self._writers = [MemoryStore(shard) for shard in world.state.shards]
        self._seen = {}

    def read_histories(self, user_ids):
        found = {}
        for shard, group in self._by_shard(user_ids):
            values = self._call("read_histories", lambda s=shard, g=group: s.read_histories(g))
            found |= zip(group, values, strict=True)
        return [found[user_id] for user_id in user_ids]

    def write(self, writes):
        size = self._world.random.choice([1, 2, 100])
        row_of = {user_id: row for row, user_id in enumerate(writes.user_ids)}
        outcomes = []
        for shard, group in self._by_shard(writes.user_ids):
            rows = [row_of[user_id] for user_id in group]
            for start in range(0, len(rows), size):
                me, some = shard.attempt(), rows[start : start + size]
                answer = self._call(
                    "write", lambda s=shard, m=me, r=some: s.state.write(m, writes, r)
                )
                outcomes.append(shard.written(answer))
        return joined(outcomes)

    def quarantine(self, user_id, value):
        shard = self._writers[self._world.state.number_of(user_id)]
        self._call("quarantine", lambda: shard.quarantine(user_id, value))

    def move_marks(self, moves):
        expected = {p: self._seen_marks(p).expected(move) for p, move in moves.items()}
        has_forgotten = False
        for number, shard in enumerate(self._writers):
            here = {p: MarkMove(expected[p][number], m.wanted) for p, m in moves.items()}
            script = self._script_of_marks(shard.state, shard._me, here)
            answer = self._call("move_marks", script)
            try:
                self._see(number, shard._remembering(answer))
            except StoreForgot:
                has_forgotten = True
        if has_forgotten:
            raise StoreForgot("a shard has forgotten writes that it had acknowledged")
        return self._smallest(moves)

    def read_marks(self, partitions):
        for number, shard in enumerate(self._writers):
            self._see(number, self._call("read_marks", lambda s=shard: s.read_marks(partitions)))
        return self._smallest(partitions)

    def write_fresh(self, fresh_ms):
        def command():
            self._writers[0].write_fresh(fresh_ms)
            self._world.judge.on_fresh(fresh_ms)

        self._call("write_fresh", command)

    def _script_of_marks(self, state, me, moves):
        def script():
            before = self._world.state.marks
            answer = state.move_marks(me, moves)
            self._world.judge.on_marks(before)
            return answer

        return script

    def _by_shard(self, user_ids):
        """Return each shard's writer with those users that are there, in their order."""
        groups = {}
        for user_id in user_ids:
            groups.setdefault(self._world.state.number_of(user_id), []).append(user_id)
        return [(self._writers[number], group) for number, group in groups.items()]

    def _seen_marks(self, partition):
        return self._seen.setdefault(partition, SeenMarks(len(self._writers)))

    def _see(self, number, marks):
        for partition, mark in marks.items():
            self._seen_marks(partition).see(number, mark)

    def _smallest(self, partitions):
        return {partition: self._seen_marks(partition).smallest() for partition in partitions}

    def _call(self, label, script):
        return call(self._world, label, script)


class SimScan(UserScan):
    """A part for each shard; what is claimed is in the first one, as a hash is in one slot."""

    def __init__(self, world):
        self._world = world
        self._scans = [MemoryScan(shard) for shard in world.state.shards]

    def parts(self):
        return [str(number) for number in range(len(self._scans))]

    def look(self, part, variant):
        there = call(self._world, "look", lambda: self._scans[int(part)].look("", variant))
        server = f"{part}-{there.server}"
        state = call(self._world, "claimed", lambda: self._scans[0].state_of(variant, server))
        return Place(server, there.n_keys, state)

    def scan(self, part, variant, cursor, n_keys):
        few = self._world.random.choice([1, 3, n_keys])
        return call(
            self._world, "scan", lambda: self._scans[int(part)].scan("", variant, cursor, few)
        )

    def claim(self, variant, server, expected, wanted):
        return call(
            self._world, "claim", lambda: self._scans[0].claim(variant, server, expected, wanted)
        )


def call(world, label, script):
    """Send a command; it may not arrive, arrive late, or arrive while its reply is lost."""
    world.scheduler.step(label)
    if world.is_store_down or world.dice("store"):
        if world.random.random() < 0.5:
            world.late.append(script)  # it waits in a buffer of the frozen server
        world.scheduler.step(label + " fails", TIMEOUT_SECONDS * world.random.random())
        raise StoreUnavailable("no answer", kind="timeout")
    answer = script()
    world.scheduler.step(label + " done")
    if world.dice("reply"):
        raise StoreUnavailable("the reply was lost", kind="connection")
    return answer
