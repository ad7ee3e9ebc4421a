"""A worker's connection to the store, on which replies get lost and calls arrive late."""

from streamer.errors import StoreUnavailable
from streamer.stores import MemoryStore

TIMEOUT_SECONDS = 1.0


class SimStore(MemoryStore):
    """One connection; a batch is several script calls, as in the real store."""

    def __init__(self, world):
        super().__init__(world.state)
        self._world = world

    def read_histories(self, user_ids):
        return self._call("read_histories", lambda: super(SimStore, self).read_histories(user_ids))

    def write(self, writes):
        size = self._world.random.choice([1, 2, 100])
        n_users = len(writes.user_ids)
        parts = [range(n, min(n + size, n_users)) for n in range(0, n_users, size)]
        outcome = None
        for rows in parts:
            writer = self.attempt()
            answer = self._call("write", lambda w=writer, r=rows: self.state.write(w, writes, r))
            outcome = _joined(outcome, self.written(answer))
        return outcome

    def quarantine(self, user_id, value):
        self._call("quarantine", lambda: super(SimStore, self).quarantine(user_id, value))

    def move_marks(self, moves):
        me = self._me

        def script():
            before = dict(self.state.marks)
            answer = self.state.move_marks(me, moves)
            self._world.judge.on_marks(before)
            return answer

        return self._remembering(self._call("move_marks", script))

    def read_marks(self, partitions):
        return self._call("read_marks", lambda: super(SimStore, self).read_marks(partitions))

    def write_fresh(self, fresh_ms):
        def command():
            super(SimStore, self).write_fresh(fresh_ms)
            self._world.judge.on_fresh(fresh_ms)

        self._call("write_fresh", command)

    def _call(self, label, script):
        """Send a command; it may not arrive, arrive late, or arrive while its reply is lost."""
        world = self._world
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


def _joined(one, other):
    if one is None:
        return other
    return type(one)(
        {**one.conflicts, **other.conflicts},
        one.foreign | other.foreign,
        one.n_superseded + other.n_superseded,
        one.n_quarantined + other.n_quarantined,
        one.n_bytes + other.n_bytes,
    )
