"""Workers that die, freeze, come and go; and what producers do to them."""

import signal
from collections import defaultdict
from random import Random

from chaos.harness import N_WORKERS
from chaos.recording import MAX_LATENESS_MS, disturbed
from integration.worker_process import frozen


def test_workers_are_killed(run):
    n_kills = run.size.pick(short=4, full=50)
    random = Random(1)
    run.open()
    run.start_workers()
    for _ in range(n_kills):
        before = run.consumed()
        run.feed(0.9 / n_kills, seconds=1.0)
        n_more = random.randrange(int(0.3 * len(run.records) / n_kills))
        victim = random.choice(run.wait_for_progress(before, 1 + n_more))
        run.kill(victim)
        assert victim.process.returncode == -signal.SIGKILL
        assert not run.is_applied()
        run.injected["kill -9"] += 1
        run.start_worker()
    run.finish()


def test_a_frozen_worker_wakes_up_after_its_partitions_have_moved(run):
    n_freezes = run.size.pick(short=1, full=6)
    run.open()
    run.start_workers()
    for _ in range(n_freezes):
        before = run.consumed()
        run.feed(0.9 / n_freezes, seconds=1.5)
        zombie = run.wait_for_progress(before)[0]
        run.members.remove(zombie)
        with frozen(zombie.process.pid):
            run.wait_until_shared()  # by the others
            before = run.consumed()
            run.feed(0.05 / n_freezes)
            run.wait_for_progress(before)
        run.members.append(zombie)
        run.wait_until_shared()  # it has noticed, and got others
        assert zombie.total("rebalances_total", kind="lost") > 0
        run.injected["zombie"] += 1
    run.finish()


def test_workers_join_and_leave(run):
    n_rounds = run.size.pick(short=1, full=10)
    run.open()
    # The older protocol here; the one that the broker prefers everywhere else.
    classic = {"kafka__group_protocol": "classic"}
    run.start_workers(**classic)
    for number in range(n_rounds):
        before = run.consumed()
        run.feed(0.9 / n_rounds, seconds=2.0)
        run.start_worker(**classic)
        leaver = run.wait_for_progress(before)[0]
        run.wait_until_shared()
        run.injected["joined"] += 1
        run.members.remove(leaver)
        assert leaver.terminate(60) == 0
        run.wait_until_shared()
        run.injected["left"] += 1
        assert len(run.members) == N_WORKERS, number
    run.finish()


def test_a_fifth_arrives_twice_and_everything_up_to_10_minutes_late(run_on, broker, own_redis, log):
    records = disturbed(log, seed=5)
    run = run_on(broker.server.bootstrap_servers, own_redis.url, records, dtype="f32")
    run.open()
    run.start_workers()
    run.feed(1)
    run.finish()
    run.injected["duplicates"] = len(records) - len(log)
    assert 0.19 < run.injected["duplicates"] / len(records) < 0.21
    time_of = {id(sent): time_ms for time_ms, sent in log}
    newest_ms, latenesses = 0, []
    for sent in records:
        newest_ms = max(newest_ms, time_of[id(sent)])
        latenesses.append(newest_ms - time_of[id(sent)])
    run.injected["late"] = sum(lateness > 0 for lateness in latenesses)
    assert 0.8 * MAX_LATENESS_MS < max(latenesses) < MAX_LATENESS_MS


def test_two_producers_disagree_about_the_partitions(run_on, broker, own_redis):
    run = run_on(broker.server.bootstrap_servers, own_redis.url)
    run.open(partitioners=("murmur2", "consistent_random"))
    run.start_workers()
    run.feed(1)
    run.finish()
    places = defaultdict(set)
    for record in run.deployment.log():
        if record.key is None:
            run.injected["events without a key"] += 1
        else:
            places[record.key, record.partition.topic].add(record.partition.number)
    split = {key for (key, _), numbers in places.items() if len(numbers) > 1}
    run.injected["users on several partitions of a topic"] = len(split)
    assert len(split) > run.size.n_users / 4
