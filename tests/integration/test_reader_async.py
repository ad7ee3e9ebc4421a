"""The asyncio reader on a network that is slow or silent: bounded waits, and no answer mixed up."""

import asyncio
import random
import time

import numpy as np
import pytest
from chaos.tcp_proxy import TcpProxy
from waiting import eventually
from worlds import event, item_model, records

from streamer.errors import ConfigError
from streamer.factors import FeatureDtype, ImportStamp, RecencyFoldIn, encode_imported
from streamer.models import load_model, publish, write_model
from streamer.pipeline.records import Decoder, Partition
from streamer.pipeline.step import FeatureFormat, Known, LiveModel, plan
from streamer.reader import AsyncFeatureReader, FeatureReader, Status
from streamer.reader.async_source import MAX_CONNECTIONS
from streamer.stores import ImportedVectors, RedisStore, connect
from streamer.stores.keys import FRESH

N_USERS = 40
USERS = [f"u{number}" for number in range(N_USERS)]
TIMEOUT_SECONDS = 0.25


class World:
    """Forty viewers, each with a favorite of their own, written as a worker does."""

    def __init__(self, url, folder):
        self.url, self.models = url, folder / "models"
        self.client = connect(url, timeout_seconds=5.0)
        model = item_model()
        write_model(
            folder / "model",
            params=model.params,
            item_ids=model.item_ids,
            item_factors=model.item_factors,
            popularity=model.popularity,
        )
        pointer = publish(self.client, self.models, folder / "model", "default")
        self.model = load_model(self.models / pointer.model_id)
        live = LiveModel("default", pointer.generation, self.model, RecencyFoldIn())
        at_ms = int(time.time() * 1000)
        events = [event(user, f"title-{n}", at_ms) for n, user in enumerate(USERS)]
        decoded = Decoder().decode(records(*events, at_ms=at_ms))
        step = plan(
            decoded.user_ids,
            Known.nothing(N_USERS),
            decoded.arrived,
            [live],
            FeatureFormat(FeatureDtype.F32, at_ms),
        )
        store = RedisStore(self.client, "streamer", tombstone_days=1)
        assert not store.write(step.writes).conflicts
        store.write_fresh({Partition("play-events", 0): at_ms})

    def expected(self):
        """Return each viewer's first vector, as the reader on threads reads it."""
        with FeatureReader.connect(self.url, models=self.models, timeout_seconds=5.0) as reader:
            reads = reader.get_many(USERS)
        assert {read.status for read in reads} <= {Status.FRESH, Status.STALE}
        return {read.user_id: read.recent for read in reads}

    def reader(self, url=None, timeout_seconds=TIMEOUT_SECONDS, **options):
        return AsyncFeatureReader.connect(
            url or self.url, models=self.models, timeout_seconds=timeout_seconds, **options
        )


@pytest.fixture
def world(redis_url, tmp_path):
    world = World(redis_url, tmp_path)
    with world.client:
        yield world


@pytest.fixture
def proxy(redis_server):
    with TcpProxy(int(redis_server.url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


def test_calls_that_are_cancelled_anywhere_never_mix_up_answers(world, proxy):
    expected = world.expected()
    dice = random.Random(7)

    async def impatient(reader, user, most_seconds):
        try:
            async with asyncio.timeout(dice.uniform(0.0, most_seconds)):
                return await reader.get(user)
        except TimeoutError:
            return None

    async def scenario():
        proxy.delay(0.002)
        n_cancelled = n_answered = 0
        async with world.reader(f"redis://{proxy.address}/0", timeout_seconds=5.0) as reader:
            for _ in range(30):
                users = dice.choices(USERS, k=20)
                started = time.monotonic()
                await asyncio.gather(*(reader.get(user) for user in users))
                usual_seconds = time.monotonic() - started  # whatever else the machine does
                calls = [impatient(reader, user, 2 * usual_seconds) for user in users]
                reads = await asyncio.gather(*calls)
                for user, read in zip(users, reads, strict=True):
                    if read is None:
                        n_cancelled += 1
                        continue
                    n_answered += 1
                    assert read.error is None
                    np.testing.assert_array_equal(read.recent, expected[user])
            proxy.delay(0)
            reads = await reader.get_many(USERS)
            assert {read.error for read in reads} == {None}
            return n_cancelled, n_answered

    n_cancelled, n_answered = asyncio.run(scenario())
    assert n_cancelled > 30
    assert n_answered > 30


@pytest.mark.parametrize("fault", ["swallow", "half_open"])
def test_a_silent_network_ends_every_call_in_time(world, proxy, fault):
    async def scenario():
        async with world.reader(f"redis://{proxy.address}/0") as reader:
            assert (await reader.get("u1")).status is not Status.DEGRADED
            getattr(proxy, fault)()
            started = time.monotonic()
            reads = await asyncio.gather(*(reader.get(user) for user in USERS))
            waited_seconds = time.monotonic() - started
            proxy.heal()
            return reads, waited_seconds

    reads, waited_seconds = asyncio.run(scenario())
    assert {read.status for read in reads} <= {Status.DEGRADED, Status.FRESH, Status.STALE}
    assert any(read.error == "timeout" for read in reads)
    assert waited_seconds < 4 * TIMEOUT_SECONDS + 1  # two waits each; the machine may be busy


def test_nobody_listening_is_a_status_and_the_loop_goes_on(tmp_path):
    async def scenario():
        async with AsyncFeatureReader.connect(
            "redis://127.0.0.1:1/0", models=tmp_path, timeout_seconds=5.0
        ) as reader:
            answers = await asyncio.gather(*(reader.top_k(user) for user in USERS))
            return [*answers, await reader.top_k("u1")]

    *together, after = asyncio.run(scenario())
    assert {answer.status for answer in together} == {after.status} == {Status.DEGRADED}
    assert {answer.error for answer in together} == {"connection"}  # all were under way
    assert after.error == "circuit_open"


def test_more_calls_than_connections_wait_for_one_and_are_all_answered(world):
    expected = world.expected()

    async def scenario():
        async with world.reader(timeout_seconds=10.0) as reader:
            users = USERS * 25
            return users, await asyncio.gather(*(reader.get(user) for user in users))

    users, reads = asyncio.run(scenario())
    assert len(users) > 5 * MAX_CONNECTIONS
    for user, read in zip(users, reads, strict=True):
        assert read.error is None
        np.testing.assert_array_equal(read.recent, expected[user])


def test_a_closed_reader_leaves_no_connection_behind(world):
    def n_connections():
        return len(world.client.execute_command("CLIENT", "LIST"))

    before = n_connections()

    async def scenario():
        async with world.reader(timeout_seconds=5.0) as reader:
            await asyncio.gather(*(reader.get(user) for user in USERS))
            return n_connections()

    assert asyncio.run(scenario()) > before
    eventually(lambda: n_connections() == before)


def test_imported_vectors_are_read_by_both(world):
    stamp = ImportStamp(world.model.model_id, 0, FeatureDtype.F32, 1)
    values = encode_imported(world.model.item_factors[:2], stamp)
    ImportedVectors(world.client, "default").write(["u1", "new"], values)

    async def scenario():
        async with world.reader(timeout_seconds=5.0, imported_lasting=True) as reader:
            return await reader.get_many(["u1", "new", "u2"])

    reads = asyncio.run(scenario())
    with FeatureReader.connect(
        world.url, models=world.models, timeout_seconds=5.0, imported_lasting=True
    ) as reader:
        others = reader.get_many(["u1", "new", "u2"])
    for read, other in zip(reads, others, strict=True):
        assert (read.is_imported, read.status) == (other.is_imported, other.status)
        np.testing.assert_array_equal(read.vectors, other.vectors)
    assert [read.is_imported for read in reads] == [True, True, False]
    np.testing.assert_array_equal(reads[1].lasting, world.model.item_factors[1])


def test_a_cluster_is_read_as_a_standalone_redis_is(cluster_url, redis_cluster, tmp_path):
    users = [f"cluster-{number}" for number in range(30)]
    client = connect(cluster_url, timeout_seconds=5.0)
    model = item_model()
    model_id = write_model(
        tmp_path / "model",
        params=model.params,
        item_ids=model.item_ids,
        item_factors=model.item_factors,
        popularity=model.popularity,
    )
    publish(client, tmp_path / "models", tmp_path / "model", "default")
    stamp = ImportStamp(int(model_id, 16), 0, FeatureDtype.F32, 1)
    ImportedVectors(client, "default").write(users, encode_imported(model.item_factors[:30], stamp))
    client.execute_command("HSET", FRESH, "streamer/play-events/0", int(time.time() * 1000))

    async def scenario():
        async with AsyncFeatureReader.connect(
            cluster_url, models=tmp_path / "models", timeout_seconds=5.0, imported_lasting=True
        ) as reader:
            return await reader.get_many(users), await reader.top_k(users[0], 3)

    reads, best = asyncio.run(scenario())
    client.close()
    for row, read in enumerate(reads):
        assert read.status is Status.FRESH
        np.testing.assert_array_equal(read.lasting, model.item_factors[row])
    assert len(best.item_ids) == 3


def test_a_node_of_a_cluster_is_refused_at_the_start(redis_cluster, tmp_path):
    async def scenario():
        async with AsyncFeatureReader.connect(redis_cluster.primaries[0].url, models=tmp_path):
            pass

    with pytest.raises(ConfigError, match=r"redis\+cluster"):
        asyncio.run(scenario())
