"""A model is published and rolled back while real workers learn and a reader reads."""

import itertools
import threading
import time
from random import Random

import numpy as np
import oracle
import pytest
from integration.worker_process import BASE_MS, Sent, deployed, event, user
from waiting import eventually

from streamer.factors import FoldInParams
from streamer.models import publish, roll_back, write_model
from streamer.reader import FeatureReader, Status

N_IDLE, N_HOT, N_TITLES = 3000, 50, 40
CACHE_USERS = 120
"""Of each worker: everybody hot, and hardly anybody idle."""
HIT_RATE_KEPT = 0.97
SWITCH_SECONDS = 2.0
"""From a roll-back until every worker serves; the promise is 1 s, on a machine that is not busy."""
FRESHNESS_SECONDS = 1.0
"""At the 99th percentile, on a machine that others keep busy too."""


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics(partitions=4)
        yield deployment


def start_worker(deployment, **settings):
    return deployment.start_worker(worker__cache_users=CACHE_USERS, **settings)


def write(deployment, seed, n_factors):
    """Write a model of some titles; return its folder and id."""
    folder = deployment.folder / f"model-{seed}"
    model_id = write_model(
        folder,
        params=FoldInParams(alpha=3.0, regularization=0.7),
        item_ids=[f"title-{number}" for number in range(N_TITLES)],
        item_factors=np.random.default_rng(seed)
        .normal(size=(N_TITLES, n_factors))
        .astype(np.float32),
        popularity=np.ones(N_TITLES, np.float32),
    )
    return folder, int(model_id, 16)


def go_live(deployment, folder):
    return publish(deployment.redis, deployment.models, folder, "default")


def plays(random, users):
    """Return a play of each of some users."""
    return [
        Sent(
            "play",
            user(who).encode(),
            event(
                who=who,
                item=f"title-{random.randrange(N_TITLES)}",
                time_ms=BASE_MS + random.randrange(3_600_000),
            ),
        )
        for who in users
    ]


def everybody_learned(deployment, random):
    """Let everybody play twice."""
    for _ in range(2):
        deployment.produce(plays(random, range(N_IDLE + N_HOT)))
    return deployment.wait_until_learned(60)


def features_of(deployment):
    values = deployment.values("st:f:*")
    return {key: oracle.read_features(value) for key, value in values.items()}


def generations(deployment):
    """Return how many users have features of each generation."""
    values = deployment.values("st:f:*").values()
    found = [int.from_bytes(value[24:28], "little") for value in values]
    return {generation: found.count(generation) for generation in sorted(set(found))}


def everybody_has(deployment, generation, timeout_seconds=60):
    wanted = {generation: N_IDLE + N_HOT}
    eventually(lambda: generations(deployment) == wanted, timeout_seconds, 0.1)


def ensure_same(found, wanted):
    """The features are equal but for their generation and the time of writing."""
    assert found.keys() == wanted.keys()
    for key, features in found.items():
        plain = {"generation": 0, "written_ms": 0, "vectors": None}
        assert features._replace(**plain) == wanted[key]._replace(**plain), key
        np.testing.assert_allclose(features.vectors, wanted[key].vectors, atol=1e-3)


class Background:
    """Repeats something on a thread of its own until the end of a `with`."""

    def __init__(self, repeat):
        self._repeat, self._is_over = repeat, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error = None

    def _run(self):
        try:
            while not self._is_over.is_set():
                self._repeat()
        except BaseException as error:  # noqa: BLE001  the test raises it
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join(30)
        if self.error is not None:
            raise self.error


def hot_traffic(deployment, random):
    """Keep producing for the hot users, some hundred events a second."""
    groups = itertools.cycle([range(start, start + 10) for start in range(0, N_HOT, 10)])

    def repeat():
        deployment.produce(plays(random, next(groups)))
        time.sleep(0.03)  # the rate of the traffic; nothing is waited for

    return Background(repeat)


def test_idle_users_get_the_new_model_though_a_worker_is_killed_in_the_middle(deployment):
    random = Random(5)
    (first, _), (second, second_id) = write(deployment, 1, 8), write(deployment, 2, 5)
    go_live(deployment, first)
    workers = [start_worker(deployment, worker__sweep_share=0.05) for _ in range(2)]
    everybody_learned(deployment, random)
    everybody_has(deployment, 1)
    for worker in workers:
        eventually(lambda w=worker: w.total("sweep_done") == 1)

    go_live(deployment, second)
    n_swept = eventually(lambda: generations(deployment).get(2, 0), 20, 0.005)
    workers[0].kill()
    assert n_swept < N_IDLE / 2
    everybody_has(deployment, 2)
    eventually(lambda: workers[1].total("sweep_done") == 1)
    features = features_of(deployment).values()
    assert {each.model_id for each in features} == {second_id}
    assert {each.n_factors for each in features} == {5}
    assert workers[1].total("sweep_progress_ratio") == 1
    assert workers[1].total("sweep_behind_total") > N_IDLE / 2
    (finished,) = [e for e in workers[1].said("sweep_finished") if e["generation"] == 2]
    assert finished["n_left_behind"] == 0
    assert finished["n_users"] >= N_IDLE + N_HOT


def test_there_and_back_again_is_as_never_having_swapped(deployment):
    random = Random(6)
    (first, first_id), (second, _) = write(deployment, 1, 8), write(deployment, 2, 8)
    go_live(deployment, first)
    workers = [start_worker(deployment) for _ in range(2)]
    everybody_learned(deployment, random)
    with hot_traffic(deployment, random):
        go_live(deployment, second)
        everybody_has(deployment, 2)
        pointer = roll_back(deployment.redis, deployment.models, "default")
        assert (int(pointer.model_id, 16), pointer.generation) == (first_id, 3)
        everybody_has(deployment, 3)
    histories = deployment.wait_until_learned()
    swapped = features_of(deployment)
    for worker in workers:
        assert worker.terminate() == 0

    deployment.redis.flushall()
    go_live(deployment, first)
    start_worker(deployment, kafka__group_id=deployment.name + "-never-swapped")
    assert deployment.wait_until_learned(60) == histories
    everybody_has(deployment, 1)
    ensure_same(swapped, features_of(deployment))


class Polling:
    """A reader that goes through everybody, over and over, and judges every read."""

    def __init__(self, reader):
        self.reader = reader
        self.pages = itertools.cycle(range(0, N_IDLE + N_HOT, 50))
        self.n_reads = self.n_mixed = 0
        self.models, self.statuses = set(), set()

    def __call__(self):
        start = next(self.pages)
        time.sleep(0.005)  # the rate of the reader; nothing is waited for
        for read in self.reader.get_many([user(n) for n in range(start, start + 50)]):
            self.n_reads += 1
            self.statuses.add(read.status)
            if read.vectors is None:
                continue
            model = read.served.model
            self.models.add(model.model_id)
            is_of_model = read.model_id == model.model_id
            self.n_mixed += not is_of_model or read.vectors.shape != (2, model.n_factors)


def hits_and_misses(workers):
    scraped = [(w.total("cache_hits_total"), w.total("cache_misses_total")) for w in workers]
    return np.array(scraped).sum(axis=0)


def delays_of(trace, start, end=None):
    """Return a part of what a worker's delay trace holds, in seconds."""
    return np.frombuffer(trace.read_bytes()[start:end])


def test_under_load_no_read_mixes_models_and_the_stream_stays_fresh(deployment):
    random = Random(7)
    (first, first_id), (second, second_id) = write(deployment, 1, 8), write(deployment, 2, 5)
    go_live(deployment, first)
    traces = [deployment.folder / f"delays{number}" for number in range(2)]
    workers = [start_worker(deployment, metrics__delay_trace=str(trace)) for trace in traces]
    everybody_learned(deployment, random)
    with (
        FeatureReader.connect(deployment.redis_url, models=deployment.models) as reader,
        hot_traffic(deployment, random),
        Background(polling := Polling(reader)),
    ):
        eventually(lambda: polling.models == {first_id})

        def hot_users_hit():
            """Wait until the hot users were seen some more hundred times."""
            before = hits_and_misses(workers)
            eventually(lambda: (hits_and_misses(workers) - before).sum() >= 1000, 60, 0.1)

        hot_users_hit()  # whoever was evicted by the idle ones is back
        counts = [hits_and_misses(workers)]
        hot_users_hit()
        counts.append(hits_and_misses(workers))
        n_before = [trace.stat().st_size for trace in traces]
        started = time.monotonic()
        go_live(deployment, second)
        everybody_has(deployment, 2)
        swept_seconds = time.monotonic() - started
        roll_back(deployment.redis, deployment.models, "default")
        rolled_back = time.monotonic()
        old = f"{first_id:016x}"
        eventually(lambda: all(w.total("model_info", model_id=old) == 1 for w in workers))
        switch_seconds = time.monotonic() - rolled_back
        everybody_has(deployment, 3)
        for worker in workers:
            eventually(lambda w=worker: w.total("sweep_done") == 1)
        counts.append(hits_and_misses(workers))
        delays = [delays_of(trace, start) for trace, start in zip(traces, n_before, strict=True)]
        earlier = [
            delays_of(trace, start - 8 * 500, start)
            for trace, start in zip(traces, n_before, strict=True)
        ]
    steady, swapping = (
        hits / (hits + misses) for hits, misses in np.diff(np.array(counts), axis=0)
    )
    p99_before, p99 = (float(np.quantile(np.concatenate(d), 0.99)) for d in (earlier, delays))
    print(  # noqa: T201  what a run measured
        f"{polling.n_reads} reads, {polling.n_mixed} mixed; hit rate {steady:.4f} before, "
        f"{swapping:.4f} during; {np.concatenate(delays).size} events, delay p99 "
        f"{p99_before:.3f} s before, {p99:.3f} s during; everybody after {swept_seconds:.1f} s, "
        f"rolled back after {switch_seconds:.2f} s"
    )
    assert polling.n_mixed == 0
    assert polling.n_reads > N_IDLE
    assert polling.models == {first_id, second_id}
    assert polling.statuses <= {Status.FRESH, Status.STALE, Status.REFOLDED}
    assert swapping >= HIT_RATE_KEPT * steady
    assert p99 < FRESHNESS_SECONDS
    assert switch_seconds < SWITCH_SECONDS
    deployment.wait_until_learned()
