"""`make soak`: two workers at half of what they can do, for long, while a third comes and goes.

Memory, files, threads and freshness are watched once a second from outside; at the end every
viewer is verified. Exit 1 if anything that must hold does not.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from integration.worker_process import STREAMER, deployed
from rich.console import Console
from rich.table import Table
from soak.judgement import Delays, Observed, judge
from soak.processes import DelayTrace, look_at, peak_rss_bytes
from waiting import eventually

from streamer.dev.stack import LocalStack
from streamer.host.tether import tethered

N_WORKERS = 2
N_PARTITIONS = 4
N_TOPICS = 2
WARM_UP_EVENTS = 10_000
SETTLE_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Plan:
    """How long, how fast, how unruly.

    Attributes:
        seconds: How long events are produced.
        rate: Records a second; None for half of the measured capacity.
        capacity_events: To measure the capacity with.
        rebalance_seconds: Between one coming or going of the third worker and the next.
        n_users: Synthetic viewers.
        n_past_events: To train the item model on.
    """

    seconds: float = 600.0
    rate: float | None = None
    capacity_events: int = 100_000
    rebalance_seconds: float = 60.0
    n_users: int = 5000
    n_past_events: int = 40_000


def soak(plan, bootstrap_servers, redis_url, folder, say=lambda _: None):
    """Run it on these servers; return what was observed."""
    with deployed(bootstrap_servers, redis_url, "soak", folder) as deployment:
        return _Soak(plan, deployment, say).run()


class _Soak:
    def __init__(self, plan, deployment, say):
        self.plan, self.deployment, self.say = plan, deployment, say
        self.traces = []
        self.third, self.is_leaving = None, False
        self.disturbed_since = None

    def run(self):
        self.deployment.create_topics(N_PARTITIONS)
        self.say("training and publishing a model ...")
        self._publish_model()
        self.workers = [self._start_worker() for _ in range(N_WORKERS)]
        for worker in self.workers:
            eventually(partial(worker.said, "worker_started"), PATIENCE_SECONDS, 0.2)
        share = N_TOPICS * N_PARTITIONS // N_WORKERS
        eventually(lambda: all(w.reads(share) for w in self.workers), PATIENCE_SECONDS, 0.2)
        capacity = self._measure_capacity()
        rate = self.plan.rate or capacity / 2
        self.observed = Observed(self.plan.seconds, rate)
        self.observed.notes |= {"capacity_per_second": round(capacity), "rate": round(rate)}
        self._watch(rate)
        self._wait_until_applied()
        self._verify()
        self._note_workers()
        return self.observed

    # steps

    def _publish_model(self):
        past, model = self.deployment.folder / "past.jsonl", self.deployment.folder / "trained"
        count = str(self.plan.n_past_events)
        self._streamer("produce", "--to", str(past), "--events", count, *self._world())
        self._streamer("model", "train", str(past), str(model), "--quiet")
        self._streamer("model", "publish", str(model))

    def _start_worker(self):
        trace = self.deployment.folder / f"delays{len(self.traces)}"
        self.traces.append(DelayTrace(trace))
        return self.deployment.start_worker(
            metrics__delay_trace=trace,
            worker__checkpoint_interval_seconds=1.0,
            kafka__client__auto_commit_interval_ms=5000,
        )

    def _measure_capacity(self):
        """Return how many events a second are applied when as many come as can be produced."""
        for n_events in (WARM_UP_EVENTS, self.plan.capacity_events):
            before = self._n_settled()
            started = time.monotonic()
            options = ("--events", str(n_events), "--rate", "1000000", "--quiet")
            self._streamer("produce", *options, *self._world())
            wanted = before + n_events
            eventually(lambda wanted=wanted: self._n_settled() >= wanted, PATIENCE_SECONDS, 0.05)
            capacity = n_events / (time.monotonic() - started)
        self.say(f"capacity: {capacity:,.0f} events/s with everything on this machine")
        for trace in self.traces:
            trace.new_delays()  # of the backlog, which says nothing about freshness
        return capacity

    def _watch(self, rate):
        observed, plan = self.observed, self.plan
        options = ("--rate", str(rate), "--seconds", str(plan.seconds), "--quiet", "--json")
        self.say(f"{plan.seconds:g} s at {rate:,.0f} events/s ...")
        producer = self._popen("produce", *options, *self._world())
        started = time.monotonic()
        next_look, next_rebalance = 0.0, plan.rebalance_seconds
        try:
            while producer.poll() is None:
                now = time.monotonic() - started
                if now < next_look:
                    time.sleep(next_look - now)
                    continue
                next_look = now + 1.0
                self._look(now)
                if self.disturbed_since is None and now >= next_rebalance < plan.seconds:
                    next_rebalance += plan.rebalance_seconds
                    self._rebalance(now)
            tally = json.loads(producer.communicate()[0])
        finally:
            if producer.poll() is None:
                producer.send_signal(signal.SIGTERM)
                producer.wait(20)
        self._look(time.monotonic() - started)
        if self.disturbed_since is not None:
            observed.disturbances.append((self.disturbed_since, time.monotonic() - started))
        observed.n_produced, observed.produce_seconds = tally["produced"], tally["seconds"]
        observed.notes |= {
            "failed_deliveries": tally["failed"],
            # Above the number of cores others had their share, and freshness tells of them too.
            "load_average_15_min": f"{os.getloadavg()[2]:.1f} on {os.cpu_count()} cores",
        }

    def _look(self, seconds):
        observed = self.observed
        for number, worker in enumerate(self.workers, 1):
            samples = observed.samples.setdefault(f"worker {number}", [])
            samples.append(look_at(worker.process.pid, seconds))
        for trace in self.traces:
            delays = trace.new_delays()
            if len(delays):
                observed.delays.append(Delays(seconds, delays))
        if self.disturbed_since is not None and self._is_settled():
            window = (self.disturbed_since, seconds + SETTLE_SECONDS)
            observed.disturbances.append(window)
            self.disturbed_since = None

    def _rebalance(self, seconds):
        """Let the third worker join, or leave."""
        self.disturbed_since = seconds
        if self.third is None:
            self.third = self._start_worker()
        else:
            self.third.process.send_signal(signal.SIGTERM)
            self.is_leaving = True

    def _is_settled(self):
        """Say whether the third worker has done what it was told, and nobody lacks a partition."""
        if self.is_leaving:
            if self.third.process.poll() is None:
                return False
            assert self.third.process.returncode == 0, self.third.output
            self.third, self.is_leaving = None, False
        if self.third is not None and not self.third.said("worker_started"):
            return False
        members = [*self.workers, *([] if self.third is None else [self.third])]
        owned = [worker.total("partitions_assigned") for worker in members]
        return sum(owned) == N_TOPICS * N_PARTITIONS and min(owned) > 0

    def _wait_until_applied(self):
        log = self.deployment.log_bounds()
        eventually(lambda: self.deployment.committed() == log, PATIENCE_SECONDS, 0.5)

    def _verify(self):
        self.say("verifying every viewer ...")
        started = time.monotonic()
        process = self._popen("verify", "--json", "--quiet")
        peak_bytes = 0
        while process.poll() is None:
            peak_bytes = max(peak_bytes, peak_rss_bytes(process.pid))
            time.sleep(0.1)
        self.observed.verified = json.loads(process.communicate()[0])
        self.observed.notes |= {
            "verify_seconds": round(time.monotonic() - started, 1),
            "verify_peak_mb": round(peak_bytes / 1e6),
        }

    def _note_workers(self):
        observed = self.observed
        for number, worker in enumerate(self.workers, 1):
            observed.rebalances += int(worker.total("rebalances_total", kind="assigned"))
            observed.notes[f"worker_{number}_cached_users"] = int(worker.total("cache_users"))
            observed.notes[f"worker_{number}_peak_mb"] = round(
                peak_rss_bytes(worker.process.pid) / 1e6, 1
            )
            observed.notes[f"worker_{number}_cpu_seconds"] = round(
                worker.scrape()["process_cpu_seconds_total", ()], 1
            )

    # tools

    def _n_settled(self):
        return sum(sum(worker.counts()[1:3]) for worker in self.workers)

    def _world(self):
        return ("--users", str(self.plan.n_users), "--seed", "7")

    def _streamer(self, *arguments):
        process = self._popen(*arguments)
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, output.decode()

    def _popen(self, *arguments):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER__")}
        ours = {
            "STREAMER__" + name.replace(".", "__").upper(): str(value)
            for name, value in self.deployment.settings().items()
        }
        return subprocess.Popen(
            tethered([str(STREAMER), *arguments]), env=inherited | ours, stdout=subprocess.PIPE
        )


def table_of(observed, checks):
    """Return the result for people."""
    table = Table(title=f"soak: {observed.seconds:g} s at {observed.rate:,.0f} events/s")
    for column in ("what", "found", "wanted", ""):
        table.add_column(column)
    for check in checks:
        table.add_row(check.name, check.found, check.wanted, "ok" if check.holds else "NO")
    for name, value in observed.notes.items():
        table.add_row(name.replace("_", " "), str(value), "told only", "")
    return table


def as_json(observed, checks):
    """Return the result for programs, with a sample a second."""
    return {
        "seconds": observed.seconds,
        "rate": observed.rate,
        "holds": all(check.holds for check in checks),
        "checks": [check._asdict() for check in checks],
        "notes": observed.notes,
        "verify": observed.verified,
        "rebalances": observed.disturbances,
        "samples": {name: [s._asdict() for s in each] for name, each in observed.samples.items()},
    }


@click.command()
@click.option("--seconds", type=click.FloatRange(10), default=600, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(1), help="Events/s; half of the capacity if not given."
)
@click.option("--rebalance-seconds", type=click.FloatRange(5), default=60, show_default=True)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(seconds, rate, rebalance_seconds, json_path):
    """Two workers at half of what they can do, for long, while a third comes and goes."""
    console = Console()
    plan = Plan(seconds=seconds, rate=rate, rebalance_seconds=rebalance_seconds)
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="streamer-soak-")))
        console.print("starting Kafka and Redis ...")
        stack = cleanup.enter_context(LocalStack.start("real"))
        observed = soak(plan, stack.bootstrap_servers, stack.redis_url, folder, console.print)
    checks = judge(observed)
    console.print(table_of(observed, checks))
    if json_path is not None:
        json_path.write_text(json.dumps(as_json(observed, checks)) + "\n", encoding="utf-8")
    sys.exit(0 if all(check.holds for check in checks) else 1)


if __name__ == "__main__":
    main()
