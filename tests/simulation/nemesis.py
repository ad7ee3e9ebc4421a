"""Who produces the events, and who does everything that can go wrong, drawn from the seed."""

import oracle
import orjson
from unit.test_runtime_fakes import event

from streamer.pipeline.ports import Mark

FAULTS = (
    "crash",
    "drain",
    "freeze",
    "store_errors",
    "lost_replies",
    "broker_errors",
    "letters_refused",
    "store_down",
    "broker_down",
    "fail_over",
    "flush",
    "publish",
    "more_partitions",
    "recreate_topic",
    "forget",
)
N_USERS, N_ITEMS = 7, 14
FORGETFUL = frozenset({"fail_over", "flush"})
RATES = {
    "store_errors": "store",
    "lost_replies": "reply",
    "broker_errors": "broker",
    "letters_refused": "letters",
}
STEPS = (
    "poll",
    "idle",
    "read_histories",
    "read_histories done",
    "write",
    "write done",
    "write fails",
    "send letters",
    "await letters",
    "letters answered",
    "wait",
    "pause",
    "move_marks",
    "move_marks done",
    "store_offsets",
    "write_fresh",
    "write_fresh done",
    "read_marks",
    "read_marks done",
    "standings",
    "lower_commit",
    "seek",
    "resume",
    "close",
    "scan done",
    "claim done",
    "claim fails",
)
"""Where a process may be killed: before and after every call that touches the world."""
MAX_WORKERS = 4
TYPES = [event_type for event_type in oracle.TYPES if event_type != "forget"]


class Nemesis:
    """Produces and harms until the storm is over.

    Attributes:
        chosen: The faults of this run.
        done: How often each was done.
    """

    def __init__(self, world, chosen):
        self._world = world
        self._random = world.random
        drawn = self._random.sample(FAULTS, self._random.randrange(1, 7))
        self.chosen = set(drawn if chosen is None else chosen)
        if "recreate_topic" in self.chosen:
            # What only the deleted topic held could not be read again.
            self.chosen -= FORGETFUL
        self.done = dict.fromkeys(FAULTS, 0)
        self._values = []

    def may(self, fault):
        """Whether this run may have a fault, or one of the same kind."""
        kin = FORGETFUL if fault in FORGETFUL else {fault}
        return bool(self.chosen & kin)

    def storm(self):
        """Some seconds of everything that was chosen."""
        world = self._world
        for _ in range(self._random.randrange(1, MAX_WORKERS)):
            world.start_worker()
        for _ in range(self._random.randrange(8, 25)):
            world.copies.append(world.state.copy())
            self._produce()
            if self._random.random() < 0.6:
                self._harm()
            if not world.alive or (len(world.alive) < MAX_WORKERS and self._random.random() < 0.15):
                world.start_worker()
            world.scheduler.sleep(self._random.choice([0.01, 0.1, 0.5, 2.0]))

    def mend(self):
        """End everything that lasts."""
        world = self._world
        world.rates.clear()
        world.is_store_down = world.broker.is_down = False
        self._arrive_late()
        for worker in world.workers:
            worker.task.crash_in = worker.task.crash_at = None
            worker.task.frozen_until = 0.0

    def _harm(self):
        fault = self._random.choice(sorted(self.chosen))
        if getattr(self, "_" + fault)() is not False:
            self.done[fault] += 1
            self._world.at_every_fault(self._world)
            self._world.scheduler.note(fault)

    # what producers do

    def _produce(self):
        for _ in range(self._random.choice([0, 1, 3, 8])):
            value = self._event()
            self._values.append(value)
            self._world.broker.append(self._random.choice(self._world.broker.partitions), value)

    def _event(self):
        random = self._random
        user = viewer(random.randrange(N_USERS))
        if random.random() < 0.1:
            return garbage(random, user)
        if self._values and random.random() < 0.15:
            return random.choice(self._values[-20:])  # a duplicate, on any partition
        ahead_ms = random.choice([299_000, 290_000, 0, -60_000, -600_000])
        time_ms = self._world.scheduler.now_ms() + ahead_ms - random.randrange(1000)
        watched_s = random.choice([0, 20, 600, 3000])
        return event(random.choice(TYPES), user, title(random), time_ms, watched_s=watched_s)

    def _forget(self):
        value = event("forget", viewer(self._random.randrange(N_USERS)))
        self._world.broker.append(self._random.choice(self._world.broker.partitions), value)

    # what happens to processes

    def _victim(self):
        alive = self._world.alive
        return self._random.choice(alive) if alive else None

    def _crash(self):
        victim = self._victim()
        if victim is None:
            return False
        if self._random.random() < 0.5:
            victim.task.crash_at = self._random.choice(STEPS)
        else:
            victim.task.crash_in = self._random.randrange(60)
        return True

    def _drain(self):
        victim = self._victim()
        if victim is None:
            return False
        victim.loop.stop()
        return True

    def _freeze(self):
        victim = self._victim()
        if victim is None:
            return False
        seconds = self._random.choice([0.5, 3.0, 10.0])
        victim.task.frozen_until = self._world.scheduler.now + seconds
        victim.source.freeze(seconds)
        return True

    # what happens to the network and the servers

    def _toggle(self, fault):
        rates, kind = self._world.rates, RATES[fault]
        if kind in rates:
            del rates[kind]
        else:
            rates[kind] = self._random.choice([0.02, 0.2, 0.5])

    def _store_errors(self):
        self._toggle("store_errors")

    def _lost_replies(self):
        self._toggle("lost_replies")

    def _broker_errors(self):
        self._toggle("broker_errors")

    def _letters_refused(self):
        self._toggle("letters_refused")

    def _store_down(self):
        self._world.is_store_down = not self._world.is_store_down
        if not self._world.is_store_down:
            self._arrive_late()

    def _arrive_late(self):
        """The server was frozen; it executes what has waited, in any order between clients."""
        late, self._world.late = self._world.late, []
        self._random.shuffle(late)
        for script in late:
            script()

    def _broker_down(self):
        self._world.broker.is_down = not self._world.broker.is_down

    def _fail_over(self):
        """Another server takes over that has not seen the last moments."""
        self._lose(self._random.choice(self._world.copies))

    def _flush(self):
        self._lose(None)

    def _lose(self, copy):
        self._world.late = []
        self._world.state.forget(copy, self._random)
        self._world.judge.forgot()

    def _publish(self):
        self._world.publish()

    def _more_partitions(self):
        for topic in self._world.broker.topics.values():
            if len(topic.logs) < 5:
                topic.logs.append([])

    def _recreate_topic(self):
        """Delete a topic of which everything is applied, and make it anew."""
        broker = self._world.broker
        name = self._random.choice(sorted(broker.topics))
        ends = {p: end for p, end in broker.ends().items() if p.topic == name}
        marks = self._world.state.marks
        vouched = {p: Mark(end, broker.topics[name].topic_id) for p, end in ends.items()}
        if any(marks.get(partition) != mark for partition, mark in vouched.items()):
            return False
        broker.create(name, len(ends))
        return True


def viewer(number):
    return f"viewer-{number}"


def title(random):
    return f"title-{random.randrange(N_ITEMS)}"


def garbage(random, user):
    """Return a value that no decoder may accept."""
    return random.choice([b"", b"{", b"[]", event("sneeze", user), orjson.dumps({"type": 1})])
