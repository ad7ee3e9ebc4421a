"""The asyncio reader under every test of the one on threads, and what is its own."""

import asyncio
import contextlib
import inspect
import threading
from types import SimpleNamespace

import pytest
from blocking_reader import BlockingReader
from unit import test_reader_client, test_reader_imported
from unit.test_reader_client import World
from worlds import NOW_MS, event, item_model

from streamer.errors import ConfigError, StoreUnavailable
from streamer.reader import AsyncFeatureReader, ReaderSettings, Status
from streamer.reader.async_source import AsyncRedisSource, ThreadedSource
from streamer.reader.live_model import ModelFollower

OF_THREADS_ALONE = {
    "test_a_variant_that_cannot_be_named_so_is_refused_at_once",
    "test_a_url_that_cannot_be_understood_is_refused_at_once",
    "test_a_closed_reader_leaves_no_thread_behind_and_may_be_closed_twice",
    "test_no_vector_of_one_model_meets_items_of_another",  # tests/integration has it for both
}


class AsyncSource:
    """The asyncio port over the fake of the blocking one; a call takes one turn of the loop."""

    def __init__(self, source):
        self.source = source
        self.n_cancelled = 0
        self.gate = None

    async def read_values(self, keys):
        await self.turn()
        return self.source.read_values(keys)

    async def read_fresh(self):
        await asyncio.sleep(0)
        return self.source.read_fresh()

    async def read_pointer(self, variant):
        await asyncio.sleep(0)
        return self.source.read_pointer(variant)

    async def close(self):
        self.source.close()

    async def turn(self):
        try:
            await (asyncio.sleep(0) if self.gate is None else self.gate.wait())
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise


class AsyncReaders:
    """Gives a `World` readers on asyncio."""

    def defaults(self):
        return {"model_interval_seconds": 1e6, "imported_lasting": self.imported_lasting}

    def reader(self, *, with_models=True, **settings):
        reader = AsyncFeatureReader(
            AsyncSource(self.source),
            "default",
            self.directory if with_models else None,
            ReaderSettings(**{**self.defaults(), **settings}),
            lambda: self.now_ms / 1000,
            lambda: self.now_ms / 1000,
        )
        blocking = BlockingReader(reader)
        self.threads.append(blocking)
        blocking._pollers = [
            SimpleNamespace(_look=lambda: blocking.run(reader._look_at_fresh())),
            SimpleNamespace(_look=lambda: blocking.run(reader._look_at_model("default"))),
        ]
        return blocking.start()


class AsyncWorld(AsyncReaders, World):
    imported_lasting = False


class AsyncImportedWorld(AsyncReaders, test_reader_imported.ImportedWorld):
    imported_lasting = True


@pytest.fixture
def world(tmp_path):
    yield from a_world(AsyncWorld(tmp_path))


@pytest.fixture
def imported_world(tmp_path):
    yield from a_world(AsyncImportedWorld(tmp_path))


def a_world(world):
    world.publish(item_model())
    yield world
    for reader in world.threads:
        reader.close()


def contract_of(module):
    """Return the tests of a module that need a world, to be run on ours."""
    found = {name: each for name, each in vars(module).items() if name.startswith("test_")}
    return {name: each for name, each in found.items() if name not in OF_THREADS_ALONE}


globals().update(contract_of(test_reader_client))


class TestImported:
    """The tests of imported vectors, which have a world of their own."""

    @pytest.fixture
    def world(self, imported_world):
        return imported_world


for _name, _test in contract_of(test_reader_imported).items():
    setattr(TestImported, _name, staticmethod(_test))


def test_the_contract_is_there():
    assert set(vars(test_reader_client)) >= OF_THREADS_ALONE
    assert len(contract_of(test_reader_client)) > 30
    for each in contract_of(test_reader_client).values():
        assert "World(" not in inspect.getsource(each)


# --- what is asyncio's own -----------------------------------------------------------------------


async def until(condition):
    """Give way to others until it holds, for 20 s at most."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail(f"not within 20 s: {condition}")


def reader_of(world, source, **settings):
    return AsyncFeatureReader(
        source,
        "default",
        world.directory,
        ReaderSettings(
            **{"model_interval_seconds": 1e6, "fresh_interval_seconds": 1e6, **settings}
        ),
        lambda: world.now_ms / 1000,
        lambda: world.now_ms / 1000,
    )


def test_a_wrong_variant_or_url_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="variant"):
        AsyncFeatureReader(None, "No Such!", tmp_path)
    for url in ("http://127.0.0.1", "redis+cluster://", "redis://h/?decode_responses=1"):
        with pytest.raises(ConfigError, match="url"):
            AsyncFeatureReader.connect(url)


def test_a_cancelled_call_counts_for_nothing_and_the_next_one_is_answered(world):
    world.learn(event("u", "title-3"))

    async def scenario():
        source = AsyncSource(world.source)
        async with reader_of(world, source) as reader:
            source.gate = asyncio.Event()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.get("u"), 0.01)
            call = asyncio.create_task(reader.get_many(["u"] * 3))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            source.gate.set()
            return source.n_cancelled, await reader.get("u")

    n_cancelled, read = asyncio.run(scenario())
    assert n_cancelled == 2
    assert (read.status, read.error) == (Status.FRESH, None)  # the circuit did not open


def test_a_cancellation_that_the_client_swallows_still_ends_the_call():
    class Swallowing:
        async def execute_command(self, *_):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            return [b"an answer"]

    async def scenario():
        source = AsyncRedisSource(Swallowing(), 20.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await source.read_values(["key"])
        call = asyncio.create_task(source.read_values(["key"]))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(scenario())


def test_a_trial_that_is_cancelled_leaves_the_next_one_to_another_request(world):
    async def scenario():
        source = AsyncSource(world.source)
        async with reader_of(world, source) as reader:
            world.source.trouble = "timeout"
            errors = [(await reader.get("u")).error for _ in range(2)]
            world.source.trouble = None
            world.now_ms += 2_000
            source.gate = asyncio.Event()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.get("u"), 0.01)
            source.gate.set()
            errors.append((await reader.get("u")).error)
            world.now_ms += 2_000
            return [*errors, (await reader.get("u")).error]

    assert asyncio.run(scenario()) == ["timeout", "circuit_open", "circuit_open", None]


def test_many_calls_are_under_way_at_once(world):
    world.learn(*(event(f"u{n}", f"title-{n}") for n in range(20)))

    async def scenario():
        source = AsyncSource(world.source)
        async with reader_of(world, source) as reader:
            source.gate = asyncio.Event()
            calls = [asyncio.create_task(reader.top_k(f"u{n}", 3)) for n in range(20)]
            await asyncio.sleep(0)
            source.gate.set()
            together = await asyncio.gather(*calls)
            return together, await reader.top_k_many([f"u{n}" for n in range(20)], 3)

    together, alone = asyncio.run(scenario())
    assert [each.item_ids for each in together] == [each.item_ids for each in alone]


def test_a_closed_reader_leaves_no_task_behind_and_may_be_closed_twice(world):
    async def scenario():
        before = asyncio.all_tasks()
        async with reader_of(world, AsyncSource(world.source)) as reader:
            assert len(asyncio.all_tasks() - before) == 2
        assert asyncio.all_tasks() == before
        await reader.close()

    asyncio.run(scenario())


def test_a_start_that_fails_lets_go_of_the_source(world):
    class Broken(AsyncSource):
        async def read_fresh(self):
            raise ConfigError("this is a node of a Redis Cluster")

    async def scenario():
        with pytest.raises(ConfigError):
            async with reader_of(world, Broken(world.source)):
                pass

    asyncio.run(scenario())
    assert world.source.trouble == "closed"


def test_pointer_and_freshness_are_followed_beside_the_requests(world):
    world.learn(event("u", "title-3"))

    async def scenario():
        quick = {"model_interval_seconds": 0.005, "fresh_interval_seconds": 0.005}
        async with reader_of(world, AsyncSource(world.source), **quick) as reader:
            first = await reader.get("u")
            world.publish(item_model(seed=9))
            world.source.fresh = {b"streamer/play-events/0": b"%d" % (NOW_MS - 50_000)}
            await until(lambda: reader.model.model_id == world.live.model.model_id)
            await until(lambda: reader._serving.freshness.age_seconds(world.now_ms) > 50)
            return first, await reader.get("u")

    first, second = asyncio.run(scenario())
    assert (first.status, second.status) == (Status.FRESH, Status.REFOLDED)
    assert second.model_id == world.live.model.model_id != first.model_id


def test_the_event_loop_goes_on_while_a_model_is_loaded(world, monkeypatch):
    loading, go_on = threading.Event(), threading.Event()
    follow = ModelFollower.follow

    def slow_follow(self, pointer):
        loading.set()
        assert go_on.wait(20)
        follow(self, pointer)

    monkeypatch.setattr(ModelFollower, "follow", slow_follow)

    async def scenario():
        reader = reader_of(world, AsyncSource(world.source))
        start = asyncio.create_task(reader.start())
        await until(loading.is_set)
        early = await reader.get("u")  # nobody waits for the model
        go_on.set()
        await start
        late = await reader.get("u")
        await reader.close()
        return early, late

    early, late = asyncio.run(scenario())
    assert early.served is None
    assert late.served is not None


def test_a_blocking_source_is_asked_on_threads(world):
    names = []

    class Recording(type(world.source)):
        def read_values(self, keys):
            names.append(threading.current_thread().name)
            return super().read_values(keys)

    source = Recording()
    source.store, source.pointer = world.source.store, world.source.pointer
    world.learn(event("u", "title-3"))

    async def scenario():
        async with reader_of(world, ThreadedSource(source)) as reader:
            reads = [await reader.get("u")]
            source.trouble = "timeout"
            return [*reads, await reader.get("u")]

    fresh, degraded = asyncio.run(scenario())
    assert fresh.status is Status.FRESH
    assert (degraded.status, degraded.error) == (Status.DEGRADED, "timeout")
    assert all(name.startswith("reader-cluster") for name in names)
    with pytest.raises(StoreUnavailable):
        source.read_fresh()  # it was closed
