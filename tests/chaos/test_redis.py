"""A Redis that freezes, dies, and forgets what it had acknowledged."""

import os
import shutil
import time
from contextlib import ExitStack

import pytest
import redis
from chaos.harness import N_WORKERS, SIZE
from chaos.servers import start_redis
from chaos.tcp_proxy import TcpProxy
from integration.worker_process import frozen
from waiting import eventually

from streamer.host.ports import LOOPBACK

QUICK_TIMEOUTS = {
    "redis__timeout_seconds": 0.5,
    "worker__watchdog_timeout_seconds": 6,
    "kafka__client__max_poll_interval_ms": 5000,
}
FREEZE_SECONDS = 7.0
"""Longer than any of these, and than the broker's patience with a silent member (3 s)."""


def test_redis_is_frozen_for_longer_than_every_time_out(run, own_redis):
    n_freezes = run.size.pick(short=1, full=4)
    run.open()
    run.start_workers(**QUICK_TIMEOUTS)
    for _ in range(n_freezes):
        before = run.consumed()
        run.feed(0.8 / n_freezes, seconds=2.0)
        run.wait_for_progress(before)
        with frozen(own_redis.pid) as since:
            run.wait_until(lambda: all(w.status("/readyz") == 503 for w in run.members))
            run.wait_until(lambda since=since: time.monotonic() > since + FREEZE_SECONDS)
        run.injected["freeze"] += 1
        assert all(worker.total("redis_errors_total", kind="timeout") for worker in run.members)
    run.finish()


@pytest.fixture
def durable_redis(redis_executable, tmp_path):
    everysec = ("--appendonly", "yes", "--appendfsync", "everysec")
    # The file is never rewritten, so that its length tells how far it was forced to disk.
    server = start_redis(tmp_path / "durable", *everysec, "--auto-aof-rewrite-percentage", "0")
    yield server
    server.stop()
    shutil.rmtree(tmp_path / "durable")  # hundreds of megabytes at full length


def test_redis_is_killed_and_restarted_from_its_log(run_on, broker, durable_redis, tmp_path):
    """With the process alone nothing is lost; with the machine, what was not forced to disk."""
    run = run_on(broker.server.bootstrap_servers, durable_redis.url)
    n_kills = run.size.pick(short=1, full=4)
    run.open()
    run.start_workers()
    for _ in range(n_kills):
        before = run.consumed()
        run.feed(0.4 / n_kills, seconds=1.0)
        run.wait_for_progress(before)
        durable_redis.kill()
        durable_redis.start()
        run.injected["kill -9"] += 1

        n_forced, n_rewinds = log_of(durable_redis).stat().st_size, run.rewinds()
        before = run.consumed()
        run.feed(0.4 / n_kills, seconds=2.0)
        run.wait_for_progress(before, 5 * run.size.batch_records)  # so some are acknowledged
        durable_redis.kill()
        os.truncate(log_of(durable_redis), n_forced)
        durable_redis.start()
        run.wait_until(lambda n=n_rewinds: run.rewinds() > n)
        run.injected["power cut"] += 1
    run.finish()


def log_of(server):
    """Return the append-only file: in a folder since Redis 7, with an empty base beside it."""
    folder = server.process.log_path.parent
    files = [*folder.glob("appendonlydir/*.aof"), *folder.glob("*.aof")]
    return max(files, key=lambda path: path.stat().st_size)


# --- fail-over ----------------------------------------------------------------------------------

RARE_MARKS = {"worker__checkpoint_interval_seconds": 10}


class ReplicatedRedis:
    """A primary and its replica; who comes through a door reaches the one that is primary now."""

    def __init__(self, folder, stack):
        self._folder, self._stack = folder, stack
        self._doors = []
        self._n_servers = 0
        self.primary = self._start()
        self.replicate()

    def door(self):
        """Return a new address of the primary."""
        self._doors.append(self._stack.enter_context(TcpProxy(self.primary.port)))
        return self._doors[-1]

    def replicate(self):
        """Give the primary a fresh replica; return when that has everything."""
        self._link = self._stack.enter_context(TcpProxy(self.primary.port))
        self.replica = self._start("--replicaof", LOOPBACK, str(self._link.port))
        with redis.Redis.from_url(self.replica.url) as client:
            eventually(lambda: client.info("replication")["master_link_status"] == "up", 60)

    def cut_link(self):
        """Let the replica receive nothing from now on."""
        self._link.refuse()

    def fail_over(self):
        """Kill the primary and promote the replica; return what histories that has."""
        self.primary.kill()
        with redis.Redis.from_url(self.replica.url) as client:
            client.replicaof("NO", "ONE")
            keys = list(client.scan_iter("st:h:*", count=10_000))
            left = dict(zip(map(bytes.decode, keys), client.mget(keys), strict=True))
        self.primary = self.replica
        for door in self._doors:
            door.target_port = self.primary.port
        return left

    def _start(self, *arguments):
        self._n_servers += 1
        folder = self._folder / f"redis{self._n_servers}"
        server = start_redis(folder, "--repl-diskless-sync-delay", "0", *arguments)
        self._stack.callback(server.stop)
        return server


@pytest.fixture
def replicated_redis(redis_executable, tmp_path):
    with ExitStack() as stack:
        yield ReplicatedRedis(tmp_path, stack)


def fail_over(run, redis, share, *, is_settled):
    """Let the primary acknowledge what its replica never gets, by every worker, and lose it.

    Args:
        run: The run.
        redis: Before the run.
        share: Of the recording, to be fed meanwhile.
        is_settled: Whether the group commits to Kafka what will be lost, before it is.
    """
    redis.cut_link()
    known, before = run.deployment.histories(), run.consumed()
    run.feed(share, seconds=2.0)
    # Who consumes a second batch has written the first one.
    n_more = run.size.batch_records
    run.wait_until(lambda: all(n > before[w] + n_more for w, n in run.consumed().items()))
    if is_settled:
        run.wait_until_applied()
    run.wait_until(lambda: run.deployment.histories() != known)
    acknowledged, n_rewinds = run.deployment.histories(), run.rewinds()
    left = redis.fail_over()
    lost = [key for key, history in acknowledged.items() if left.get(key) != history]
    assert lost
    run.injected["fail-over"] += 1
    run.injected["histories lost"] += len(lost)
    run.wait_until(lambda: run.rewinds() > n_rewinds)


def test_redis_fails_over_to_a_replica_that_lacks_acknowledged_writes(
    run_on, broker, replicated_redis
):
    n_fail_overs = SIZE.pick(short=2, full=6)
    door = replicated_redis.door()
    run = run_on(broker.server.bootstrap_servers, f"redis://{door.address}/0")
    run.open()
    run.start_workers()
    run.feed(0.1)
    for number in range(n_fail_overs):
        fail_over(run, replicated_redis, 0.8 / n_fail_overs, is_settled=number % 2 == 0)
        replicated_redis.replicate()
    run.finish()


def test_redis_fails_over_while_one_worker_is_an_hour_behind(run_on, broker, replicated_redis):
    """Its backlog was appended an hour ago, and its way to Redis is too slow to catch up.

    Marks are so far apart here that usually none was lost: only the writes after them were.
    """
    slow_door, door = replicated_redis.door(), replicated_redis.door()
    run = run_on(broker.server.bootstrap_servers, f"redis://{door.address}/0")
    run.open(timestamp_type="CreateTime")  # which believes producers: an hour is not waited for
    run.feed(0.5, seconds=0, age_seconds=3600)
    run.wait_until_fed()
    slow_door.delay(0.1)
    slow = run.start_worker(
        redis__url=f"redis://{slow_door.address}/0",
        redis__timeout_seconds=2,
        worker__batch_records=run.size.pick(short=5, full=50),
        **RARE_MARKS,
    )
    run.wait_for_progress({})  # it keeps some of the backlog when the others come
    fast = [run.start_worker(**RARE_MARKS) for _ in range(N_WORKERS - 1)]
    run.wait_until_shared()
    run.wait_until(lambda: all(map(run.has_caught_up, fast)))
    assert max(seconds_behind(run, worker) for worker in fast) < 600
    fail_over(run, replicated_redis, 0.2, is_settled=False)
    assert seconds_behind(run, slow) > 3600
    run.injected["worker an hour behind"] += 1
    slow_door.heal()
    run.finish()


def seconds_behind(run, worker):
    """Return the age of the oldest record that the worker has yet to apply; 0 without any."""
    next_offsets = worker.next_offsets()
    ages = [
        time.time() - record.timestamp_ms / 1000
        for record in run.deployment.log()
        if record.offset >= next_offsets.get(tuple(record.partition), record.offset + 1)
    ]
    return max(ages, default=0.0)
