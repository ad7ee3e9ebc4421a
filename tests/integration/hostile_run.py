"""Hostile records through a real worker: none lost, none twice, nothing grown.

``python tests/integration/hostile_run.py`` (`make hostile`) starts a Kafka and a Redis of its own,
sends a million, and prints what became of them; the short form in `test_worker_hostile.py` is the
same run. The browse topic has producers' timestamps of any size, the play topic the broker's.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import oracle
import pytest
from confluent_kafka import Producer
from integration.hostile_records import N_TITLES, HostileRecords
from integration.worker_process import SECRET, deployed
from waiting import eventually
from worlds import item_model

from streamer.dev.kafka_program import find_kafka_program
from streamer.dev.kafka_server import KafkaServer
from streamer.dev.redis_server import RedisServer
from streamer.events import EventType, RejectReason
from streamer.factors import LEARNER_FAULTS, FoldInParams, decode_features
from streamer.kafka.log_reader import read_log
from streamer.kafka.topics import TIMESTAMP_TYPE, TopicSpec, create_topics, topic_specs
from streamer.models import publish, write_model

CHUNK = 5000
MOST_AHEAD = 40_000
"""Records sent but not yet accounted for: the worker always has a backlog, and a bounded one."""
PARTITIONS = 2
WARM_UP_SHARE = 0.3
MAX_GROWTH = 0.1
"""Of resident memory after the warm-up: the median of the last fifth against that of the first. A
batch of the largest records lifts it for a moment, which is the peak; a leak stays."""
JUDGED_FROM = 100_000
"""Records; a shorter run ends while the caches are still filling."""
MAY_APPEAR = ("streamer_kafka_errors_total", "streamer_redis_errors_total")
"""Series of a closed set that are not touched at start."""
ACCOUNTED = {
    f"streamer_{name}_total"
    for name in ("events_applied", "records_dead_lettered", "records_abandoned")
}
CLOSED = {
    "type": set(EventType),
    "reason": {*RejectReason, *LEARNER_FAULTS, "bound"},
    "variant": {"default"},
}


@dataclass
class Summary:
    """What was sent and what became of it; `wrong` is empty when all is well."""

    n_sent: int = 0
    counts: tuple = ()
    n_letters: int = 0
    reason_of: dict = field(default_factory=dict)
    reasons: Counter = field(default_factory=Counter)
    n_accepted: int = 0
    n_users: int = 0
    n_features: int = 0
    resident_mb: list = field(default_factory=list)
    n_series: tuple = ()
    seconds: float = 0.0
    wrong: list = field(default_factory=list)

    def expect(self, what, found, expected):
        if found != expected:
            self.wrong.append(f"{what}: {found}, expected {expected}")

    def steady(self):
        """Return resident memory after the warm-up, MB: at first, at last, and its peak."""
        samples = self.resident_mb[int(WARM_UP_SHARE * len(self.resident_mb)) :]
        fifth = max(1, len(samples) // 5)
        return median(samples[:fifth]), median(samples[-fifth:]), max(samples)

    def __str__(self):
        consumed, applied, dead, abandoned = self.counts
        warm, last, peak = self.steady()
        steps = [self.resident_mb[len(self.resident_mb) * tenth // 10] for tenth in range(1, 10)]
        course = " ".join(f"{each:.0f}" for each in steps)
        growth = (
            f"after the warm-up, {last:.1f} MB at last ({last / warm - 1:+.1%}), peak {peak:.1f}"
        )
        reasons = "".join(f"\n    {name:<22}{n:>10,}" for name, n in self.reasons.most_common())
        return f"""\
  sent                  {self.n_sent:>12,}  in {self.seconds:.0f} s
  consumed              {consumed:>12,}
  = applied             {applied:>12,}  the oracle accepts {self.n_accepted:,}
  + dead-lettered       {dead:>12,}  letters {self.n_letters:,}, of {len(self.reason_of):,} records
  + abandoned           {abandoned:>12,}{reasons}
  users compared        {self.n_users:>12,}  with features {self.n_features:,}
  series                {self.n_series[0]:>12,}  at the end {self.n_series[1]:,}
  resident memory       {warm:>9.1f} MB  {growth}
  at each tenth         {course} MB
  wrong                 {len(self.wrong):>12,}""" + "".join(f"\n    {each}" for each in self.wrong)


def run(deployment, n_records, seed, *, progress=lambda n_done: None):
    """Send the records through one worker, and compare; returns the `Summary`."""
    summary = Summary()
    started = time.monotonic()
    prepare(deployment)
    worker = deployment.start_worker()
    eventually(lambda: worker.reads(2 * PARTITIONS), 30)
    eventually(lambda: worker.total("model_info") == 1, 30)
    eventually(lambda: n_series(worker, "streamer_partition_lag_seconds") == 2 * PARTITIONS, 30)
    before = set(worker.scrape())
    send(deployment, worker, n_records, seed, summary, progress)
    eventually(lambda: sum(worker.counts()[1:]) >= summary.n_sent, 120, 0.2)
    eventually(lambda: worker.total("partition_lag_records") == 0, 30, 0.2)
    summary.counts = worker.counts()
    count_letters(deployment, worker, summary)
    ensure_series_stay(deployment, worker, before, summary)
    compare_users(deployment, summary)
    summary.expect("exit code", worker.terminate(), 0)
    summary.expect("ids in the log", SECRET in worker.output, False)
    consumed, *parts = summary.counts
    summary.expect("consumed", consumed, summary.n_sent)
    summary.expect("applied + dead-lettered + abandoned", sum(parts), consumed)
    summary.expect("abandoned", parts[2], 0)
    summary.expect("applied", parts[0], summary.n_accepted)
    summary.expect("letters", summary.n_letters, parts[1])
    summary.expect("distinct letters", len(summary.reason_of), parts[1])
    summary.seconds = time.monotonic() - started
    return summary


def prepare(deployment):
    """Make the topics, and publish a model."""
    play, browse, *letters = topic_specs(
        list(deployment.topics.values()),
        ".dlq",
        partitions=PARTITIONS,
        replication=1,
        retention_days=7,
    )
    producers_time = {
        TIMESTAMP_TYPE: "CreateTime",
        "message.timestamp.after.max.ms": str((1 << 63) - 1),
        "retention.ms": "-1",  # or the oldest times would be deleted before they are read back
    }
    browse = TopicSpec(browse.name, PARTITIONS, 1, {**browse.settings, **producers_time})
    create_topics(deployment.admin, [play, browse, *letters])
    model = item_model(N_TITLES)
    folder = deployment.folder / "model"
    write_model(
        folder,
        params=FoldInParams(alpha=10.0, regularization=1.0),
        item_ids=model.item_ids,
        item_factors=model.item_factors,
        popularity=model.popularity,
    )
    deployment.models.mkdir()
    publish(deployment.redis, deployment.models, folder, "default")


def send(deployment, worker, n_records, seed, summary, progress):
    """Produce, never more than MOST_AHEAD before what the worker has accounted for."""
    producer = Producer(
        {
            "bootstrap.servers": deployment.bootstrap_servers,
            "linger.ms": 5,
            "message.max.bytes": 1_048_000,
            "queue.buffering.max.kbytes": 65_536,
        }
    )

    def on_delivery(error, _):
        if error is None:
            summary.n_sent += 1
        else:
            summary.wrong.append(f"not sent: {error.str()}")

    records = HostileRecords(seed)
    for n_made in range(0, n_records, CHUNK):
        for _, record in zip(range(min(CHUNK, n_records - n_made)), records, strict=False):
            producer.produce(
                deployment.topics[record.topic],
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp=record.timestamp_ms,
                on_delivery=on_delivery,
            )
        assert producer.flush(60) == 0
        deadline = time.monotonic() + 120
        while True:
            n_done, resident_mb = look(worker)
            summary.resident_mb.append(resident_mb)
            if summary.n_sent - n_done <= MOST_AHEAD:
                break
            assert time.monotonic() < deadline, "the worker hangs"
            time.sleep(0.1)
        progress(n_done)


def look(worker):
    """Return how many records are accounted for, and resident memory in MB, of one scrape."""
    n_done, resident_mb = 0, 0.0
    for (name, _), number in worker.scrape().items():
        if name in ACCOUNTED:
            n_done += int(number)
        elif name == "process_resident_memory_bytes":
            resident_mb = number / 1e6
    return n_done, resident_mb


def n_series(worker, wanted):
    return sum(name == wanted for name, _ in worker.scrape())


def count_letters(deployment, worker, summary):
    """Read the dead letters back: as many as were counted, each record once, by reason."""
    for letter in read_log(
        {}, deployment.bootstrap_servers, [f"{topic}.dlq" for topic in deployment.topics.values()]
    ):
        headers = dict(letter.headers)  # the last one of a name is ours
        place = headers["topic"].decode(), int(headers["partition"]), int(headers["offset"])
        summary.reason_of[place] = headers["reason"].decode()
        summary.reasons[headers["reason"].decode()] += 1
        summary.n_letters += 1
    for reason in RejectReason:
        counted = worker.total("records_dead_lettered_total", reason=reason)
        summary.expect(f"letters because of {reason}", summary.reasons[reason], counted)


def ensure_series_stay(deployment, worker, before, summary):
    """The same series as before the first record, and no label but of the closed sets."""
    after = set(worker.scrape())
    summary.n_series = (len(before), len(after))
    new = {name for name, _ in after - before} - set(MAY_APPEAR)
    summary.expect("new series", new, set())
    closed = {**CLOSED, "topic": set(deployment.topics.values())}
    for _, labels in after:
        for name, value in labels:
            if name in closed and value not in closed[name]:
                summary.wrong.append(f"label {name}={value}")


def compare_users(deployment, summary):
    """Every user's history is what the oracle makes of the topics; features belong to it."""
    users = {}
    for record in read_log({}, deployment.bootstrap_servers, list(deployment.topics.values())):
        accepted = oracle.verdict(record.value, record.timestamp_ms)
        reason = summary.reason_of.get((*record.partition, record.offset))
        if (accepted is None) != (reason is not None):
            judged = "refuses" if accepted is None else "accepts"
            summary.wrong.append(f"{record.partition} {record.offset}: {reason}; oracle {judged}")
        if accepted is None:
            continue
        summary.n_accepted += 1
        until_ms = accepted.forgotten_before_ms or 0
        if accepted.interaction or until_ms:
            state, waiting = users.setdefault(accepted.user_id, (oracle.State(), []))
            waiting += [accepted.interaction] if accepted.interaction else []
            if until_ms or len(waiting) >= 500:
                state.learn(waiting, until_ms)
                waiting.clear()
    expected = {
        oracle.history_key(user): state.learn(waiting).to_bytes()
        for user, (state, waiting) in users.items()
    }
    found = deployment.histories()
    summary.n_users = len(found)
    summary.expect("users", len(found), len(expected))
    different = [key for key, value in expected.items() if found.get(key) != value]
    summary.expect("histories that differ from the oracle's", len(different), 0)
    features = deployment.values("st:f:*")
    summary.n_features = len(features)
    for key, value in features.items():
        read = decode_features(value)
        history = found.get(key.replace("st:f:", "st:h:", 1).replace("}:default:", "}:", 1))
        if (
            read is None
            or history is None
            or history[8:16] != read.history_digest.to_bytes(8, "little")
        ):
            summary.wrong.append("features that are broken or of another history")
    summary.expect(
        "users with features",
        summary.n_features,
        sum(value[4:6] != b"\0\0" for value in found.values()),
    )
    summary.expect("values in quarantine", len(deployment.values("st:q:*")), 0)


def main():
    parser = argparse.ArgumentParser(description="Hostile records through a real worker.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args()
    started = time.monotonic()

    def progress(n_done):
        if not options.quiet and sys.stderr.isatty():
            rate = n_done / (time.monotonic() - started)
            print(f"\r{n_done:>12,} records, {rate:,.0f}/s ", end="", file=sys.stderr)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-hostile-")))
        kafka, redis_server = KafkaServer(find_kafka_program(), folder), RedisServer(folder)
        for server in (kafka, redis_server):
            stack.callback(server.stop)
            server.start()
        summary = run_on(kafka, redis_server, folder, options, progress)
    print(f"\rseed {options.seed}: hostile records through a worker\n{summary}")
    return 1 if summary.wrong or grown(summary) else 0


def run_on(kafka, redis_server, folder, options, progress):
    try:
        with deployed(kafka.bootstrap_servers, redis_server.url, "hostile", folder) as deployment:
            return run(deployment, options.records, options.seed, progress=progress)
    except pytest.fail.Exception as failure:
        sys.exit(f"hostile: {failure}")


def grown(summary):
    """Say whether memory has grown beyond the bound, if the run was long enough to tell."""
    warm, last, _ = summary.steady()
    return summary.n_sent >= JUDGED_FROM and last > warm * (1 + MAX_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
