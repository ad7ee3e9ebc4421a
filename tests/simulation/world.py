"""One run: a world from a seed, a storm of faults, then calm, and the judge's verdict.

Which faults a run may have is drawn first (a run with everything at once finds less than runs with
some of it), then when they happen, then who is next, all from one generator: the seed replays it.
"""

from collections import deque
from contextlib import contextmanager
from random import Random
from unittest.mock import patch

from simulation.broker import Broker
from simulation.judge import Judge, ensure
from simulation.nemesis import N_USERS, Nemesis, title, viewer
from simulation.scheduler import Scheduler
from simulation.shards import Shards
from simulation.worker import SimWorker
from unit.test_runtime_fakes import event, item_model

from streamer.factors import RecencyFoldIn
from streamer.pipeline.ports import Mark
from streamer.pipeline.step import LiveModel
from streamer.pipeline.sweep import decode_sweep

TOPICS = ("play-events", "browse-events")
MODELS = [item_model(seed=1), item_model(seed=2, n_factors=6), item_model(seed=3)]
CALM_SECONDS = 120.0
TIMED = ("loop", "retrying", "observer", "sweeper")


class World:
    """Everything there is in one run.

    Attributes:
        random: Where every choice comes from.
        scheduler: The clock, and whose turn it is.
        state: What the store holds, in one shard or a few.
        broker: Kafka.
        judge: What must hold.
        live: The published model.
        rates: Probability of a fault of each kind, per call, for the present.
        is_store_down: Whether every call to the store times out.
        late: Calls that a frozen store will still execute.
        workers: Every process, also ended ones.
        ended: Those that have ended, in order, until the judge has seen them.
        may_forget: Whether the store loses acknowledged writes in this run.
        may_recreate: Whether a topic is deleted and made anew in this run.
        is_everybody_touched: Whether every viewer has an event after the storm; else it is for the
            sweep to find those who are behind.
        calm_since_ms: When the storm was over.
    """

    def __init__(self, seed, chosen=None, at_every_fault=None):
        self.random = Random(seed)
        self.scheduler = Scheduler(self.random)
        self.state = Shards.empty(self.random.choice([1, 1, 2, 3]))
        self.broker = Broker(self.scheduler, TOPICS, self.random.choice([1, 2, 3]))
        self.judge = Judge(self)
        self.live = LiveModel("default", 1, MODELS[0], RecencyFoldIn())
        self.at_every_fault = at_every_fault or (lambda _: None)
        self.rates = {}
        self.is_store_down = False
        self.late = []
        self.workers = []
        self.ended = []
        self.copies = deque(maxlen=12)
        self.nemesis = Nemesis(self, chosen)
        self.may_forget = self.nemesis.may("fail_over")
        self.may_recreate = self.nemesis.may("recreate_topic")
        self.is_everybody_touched = self.random.random() < 0.5
        self.calm_since_ms = 0

    def dice(self, kind):
        """Whether a fault of this kind strikes now."""
        rate = self.rates.get(kind)
        return rate is not None and self.random.random() < rate

    def start_worker(self):
        self.workers.append(SimWorker(self, f"worker-{len(self.workers) + 1}"))

    @property
    def alive(self):
        return [worker for worker in self.workers if worker.is_alive]

    def publish(self):
        """Make another model live; its generation is higher, also when the model goes back."""
        model = self.random.choice(MODELS)
        self.live = LiveModel("default", self.live.generation + 1, model, RecencyFoldIn())

    def run(self):
        """Run to the end.

        Raises:
            Wrong: An invariant did not hold.
        """
        try:
            storm = self.scheduler.spawn("nemesis", self.nemesis.storm)
            self.scheduler.spawn("monitor", self._monitor)
            self._run_until(lambda: storm.is_done)
            self._calm_down()
            self._run_until(lambda: self._keep_two_running() or self._is_quiet())
            self.judge.on_quiet()
        finally:
            self.scheduler.end()
        return self

    def _run_until(self, is_over):
        deadline = self.scheduler.now + CALM_SECONDS

        def check():
            while self.ended:
                self.judge.on_end_of_process(self.ended.pop())
            ensure(self.scheduler.now < deadline, "never quiet:", self._standing())
            return is_over()

        self.scheduler.run(check)

    def _calm_down(self):
        """Mend everything; in some runs every viewer has one more event, with the last model."""
        self.nemesis.mend()
        self._keep_two_running()
        for worker in self.alive:
            worker._live = self.live
        self.calm_since_ms = self.scheduler.now_ms()
        if not self.is_everybody_touched:
            return
        for number in range(N_USERS):
            time_ms = self.scheduler.now_ms() + 299_000
            self.broker.append(
                self.random.choice(self.broker.partitions),
                event("play_stop", viewer(number), title(self.random), time_ms),
            )

    def _keep_two_running(self):
        """As a supervisor would; those that were asked to stop end some time."""
        while sum(not worker.loop.is_stopping for worker in self.alive) < 2:
            self.start_worker()

    def _is_quiet(self):
        """Everything is applied, vouched for in the topics as they are now, and committed."""
        broker = self.broker
        ends = broker.ends()
        marks = {p: Mark(end, broker.topics[p.topic].topic_id) for p, end in ends.items()}
        committed = {p: next_offset for p, next_offset in broker.committed.items() if next_offset}
        is_read = self.state.marks == marks and committed == {p: e for p, e in ends.items() if e}
        return is_read and (self.is_everybody_touched or self._is_swept())

    def _is_swept(self):
        """Every part of the store was swept for the live model, all of it since the storm."""
        states = self.state.shards[0].sweeps.get(self.live.variant, {})
        for number, shard in enumerate(self.state.shards):
            sweep = decode_sweep(states.get(f"{number}-{shard.server}"))
            if sweep is None or sweep.generation != self.live.generation or not sweep.is_done:
                return False
            if sweep.started_ms < self.calm_since_ms:
                return False
        return True

    def _standing(self):
        return {
            "ends": self.broker.ends(),
            "marks": self.state.marks,
            "committed": self.broker.committed,
        }

    def _monitor(self):
        """Tell every worker the watermarks, as its monitor thread would."""
        while True:
            self.scheduler.sleep(1.0)
            if self.broker.is_down:
                continue
            asked_at_ms = self.scheduler.now_ms()
            for worker in self.alive:
                if worker.task.frozen_until <= self.scheduler.now:
                    worker.progress.observe_watermarks(asked_at_ms, self.broker.ends())


@contextmanager
def on_the_clock_of(scheduler):
    """Let the runtime's modules read the simulated clock."""
    patches = [patch(f"streamer.runtime.{name}.time", scheduler) for name in TIMED]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def simulate(seed, chosen=None, at_every_fault=None):
    """Run one seed and return its world; the error of a failure names the seed and the faults.

    Args:
        seed: Where every choice comes from.
        chosen: The faults; None draws them from the seed.
        at_every_fault: Called with the world whenever a fault strikes.
    """
    world = World(seed, chosen, at_every_fault)
    with on_the_clock_of(world.scheduler):
        try:
            return world.run()
        except Exception as error:
            error.add_note(f"seed {seed}, faults {sorted(world.nemesis.chosen)}")
            error.world = world
            raise
