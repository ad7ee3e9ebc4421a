"""The reader against a real Redis that was written by the worker's own code."""

import json
import os
import signal
import time

import numpy as np
import pytest
from blocking_reader import BlockingReader
from click.testing import CliRunner
from waiting import eventually
from worlds import event, records

from streamer.cli.main import cli
from streamer.dev.redis_server import RedisServer
from streamer.factors import FeatureDtype, FoldInParams, RecencyFoldIn
from streamer.history import decode
from streamer.models import load_model, publish, write_model
from streamer.pipeline.records import Decoder, Partition
from streamer.pipeline.step import FeatureFormat, Known, LiveModel, plan
from streamer.reader import AsyncFeatureReader, FeatureReader, Status, blend_many
from streamer.stores import RedisStore, connect
from streamer.stores.keys import features_key, history_key

PLAYS, BROWSING = Partition("play-events", 0), Partition("browse-events", 3)
TASTES = ("crime", "comedy", "space")
TITLES = [f"{taste}-{n}" for taste in TASTES for n in range(5)]
POPULAR = [*TITLES[3:], *TITLES[:3]]  # space-4 is the least popular but for the first three


def now_ms():
    return int(time.time() * 1000)


class World:
    """Writes as a worker does, and opens readers of one kind."""

    def __init__(self, url, folder, kind):
        self.url = url
        self.kind = kind
        self.folder = folder
        self.models = folder / "models"
        self.client = connect(url, timeout_seconds=5.0)
        self.store = RedisStore(self.client, "streamer", tombstone_days=1)
        self.live = None

    def publish(self, n_factors=3, turned_by=0):
        """Make a model live in which every taste is an axis; the axes can be turned."""
        item_factors = np.zeros((len(TITLES), n_factors), np.float32)
        axes = (np.arange(len(TITLES)) // 5 + turned_by) % 3
        item_factors[np.arange(len(TITLES)), axes] = np.tile(1.0 - 0.1 * np.arange(5), 3)
        folder = self.folder / f"model-{n_factors}-{turned_by}"
        write_model(
            folder,
            params=FoldInParams(alpha=10.0, regularization=1.0),
            item_ids=TITLES,
            item_factors=item_factors,
            popularity=np.array([len(TITLES) - POPULAR.index(title) for title in TITLES]),
        )
        pointer = publish(self.client, self.models, folder, "default")
        model = load_model(self.models / pointer.model_id)
        self.live = LiveModel("default", pointer.generation, model, RecencyFoldIn())

    def learn(self, *events, is_folded_in=True):
        at_ms = now_ms()
        decoded = Decoder().decode(records(*events, at_ms=at_ms))
        histories, digests, _ = decode(self.store.read_histories(decoded.user_ids))
        known = Known(histories, digests, {})
        live = self.live if is_folded_in else None
        step = plan(
            decoded.user_ids, known, decoded.arrived, [live], FeatureFormat(FeatureDtype.F16, at_ms)
        )
        assert not self.store.write(step.writes).conflicts

    def vouch(self, age_seconds=0.0):
        fresh_ms = now_ms() - int(1000 * age_seconds)
        self.store.write_fresh({PLAYS: now_ms(), BROWSING: fresh_ms})

    def reader(self, timeout_seconds=5.0):
        options = {"models": self.models, "timeout_seconds": timeout_seconds}
        if self.kind == "asyncio":
            return BlockingReader(AsyncFeatureReader.connect(self.url, **options))
        return FeatureReader.connect(self.url, **options)


@pytest.fixture(params=["threads", "asyncio"])
def kind(request):
    return request.param


@pytest.fixture
def world(redis_url, tmp_path, kind):
    world = World(redis_url, tmp_path, kind)
    world.publish()
    world.vouch()
    with world.client:
        yield world


@pytest.fixture
def own_redis(redis_executable, tmp_path):
    """A Redis that a test may stop, kill and freeze."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder, ("--appendonly", "yes", "--appendfsync", "always"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_what_the_worker_wrote_is_read_fresh_and_ranked_by_taste(world):
    world.learn(event("u", "comedy-1", now_ms()), event("u", "comedy-2", now_ms() - 60_000))
    with world.reader() as reader:
        read = reader.get("u")
        assert read.status is Status.FRESH
        assert 0 <= read.age_seconds < 10
        assert read.model_id == world.live.model.model_id
        answer = reader.top_k("u", k=3)
        assert answer.item_ids == ("comedy-0", "comedy-3", "comedy-4")
        assert answer.status is Status.FRESH
        page = {taste: [f"{taste}-{n}" for n in range(5)] for taste in TASTES}
        assert reader.rank_rows(read, page)[0] == "comedy"
        assert reader.score(read, ["crime-0", "comedy-0"]).argmax() == 1


def test_the_served_vector_is_the_blend_of_the_worker_s_vectors(world):
    at_ms = now_ms()
    plays = [event("u", f"{taste}-0", at_ms - n) for n, taste in enumerate(TASTES)]
    world.learn(*plays)
    histories, _, _ = decode(world.store.read_histories(["u"]))
    exact = RecencyFoldIn()(histories, world.live.model).vectors[0].astype(np.float64)
    recent, lasting = (vector / np.linalg.norm(vector) for vector in exact)
    with world.reader() as reader:
        read = reader.get("u")
        for idle_s in (0, 600, 1800, 86_400):
            g = 2 ** (-idle_s / 1800)
            served = read.vector(at_ms + 1000 * idle_s)
            np.testing.assert_allclose(served, g * recent + (1 - g) * lasting, atol=1e-3)


def test_an_old_vouch_makes_reads_stale_and_a_new_one_fresh(world):
    world.learn(event("u", "comedy-1", now_ms()))
    world.vouch(age_seconds=30)
    with world.reader() as reader:
        read = reader.get("u")
        assert read.status is Status.STALE
        assert 29 < read.age_seconds < 40
        assert reader.top_k("u", k=1).item_ids == ("comedy-0",)
        world.vouch()
        eventually(lambda: reader.get("u").status is Status.FRESH)


def test_an_idle_viewer_is_fresh(world):
    world.learn(event("u", "comedy-1", now_ms() - 90 * 86_400_000))
    with world.reader() as reader:
        assert reader.get("u").status is Status.FRESH


def test_viewers_without_evidence_are_cold_and_get_what_is_popular(world):
    world.learn(event("unlucky", "a title of tomorrow", now_ms()))
    with world.reader() as reader:
        for user_id in ("nobody", "unlucky"):
            answer = reader.top_k(user_id, k=4)
            assert (answer.status, list(answer.item_ids)) == (Status.COLD, POPULAR[:4])


def test_a_forgotten_viewer_is_cold(world):
    world.learn(event("u", "comedy-1", now_ms()))
    world.learn(event("u", None, now_ms(), "forget"))
    with world.reader() as reader:
        read = reader.get("u", check_history=True)
        assert (read.status, read.vectors) == (Status.COLD, None)


@pytest.mark.parametrize("n_factors", [3, 7])
def test_the_reader_follows_a_model_switch_and_never_multiplies_across_models(world, n_factors):
    # A product across the two models would rank space-0 first: its axis is where comedy was.
    world.learn(event("u", "comedy-1", now_ms()))
    with world.reader() as reader:
        before = reader.get("u", check_history=True)
        world.publish(n_factors, turned_by=1)
        across = before.vector(now_ms()) @ world.live.model.item_factors[:, :3].T
        assert not TITLES[int(across.argmax())].startswith("comedy")
        new_id = world.live.model.model_id

        answers = []
        eventually(lambda: answers.append(reader.top_k("u", k=1)) or answers[-1].model_id == new_id)
        assert {answer.item_ids for answer in answers} == {("comedy-0",)}
        assert {answer.status for answer in answers} <= {Status.FRESH, Status.REFOLDED}
        assert answers[-1].status is Status.REFOLDED
        assert reader.get("u").status is Status.REFOLDED
        # A read of before the switch is still answered with the model it belongs to.
        old = reader.top_k(before, k=1)
        assert (old.item_ids, old.model_id) == (("comedy-0",), before.model_id)

        world.learn(event("u", "comedy-2", now_ms()))  # the worker has switched too
        after = reader.get("u")
        assert (after.status, after.generation) == (Status.FRESH, 2)
        assert after.recent.shape == (n_factors,)
        assert reader.top_k("u", k=1).item_ids == ("comedy-0",)


def test_broken_values_are_never_served(world):
    users = ("zeros", "later version", "cut", "list")
    world.learn(*(event(user_id, "comedy-1", now_ms()) for user_id in users))
    key = {user_id: features_key("default", user_id) for user_id in users}
    world.client.set(key["zeros"], bytes(64 + 12))
    world.client.set(key["later version"], b"SF\x02" + world.client.get(key["cut"])[3:])
    world.client.set(key["cut"], world.client.get(key["cut"])[:-1])
    world.client.delete(key["list"])
    world.client.rpush(key["list"], "what is this?")
    with world.reader() as reader:
        reads = reader.get_many(users)
        assert [read.status for read in reads] == [Status.REFOLDED] * 4
        assert [read.error for read in reads] == ["broken_features"] * 3 + [None]
        assert reader.top_k("cut", k=1).item_ids == ("comedy-0",)
        world.client.set(history_key("cut"), b"SH\x01 and nonsense")
        read = reader.get("cut")
        assert (read.status, read.error) == (Status.COLD, "broken_history")
        assert list(reader.top_k("cut", k=1).item_ids) == POPULAR[:1]


def test_seen_and_hidden_titles_are_left_out(world):
    world.learn(
        event("u", "comedy-0", now_ms()),
        event("u", "comedy-1", now_ms(), "thumb_down"),
        event("u", "comedy-2", now_ms(), "detail_view"),
    )
    with world.reader() as reader:
        assert set(TITLES) - set(reader.top_k("u").item_ids) == {"comedy-0", "comedy-1"}
        assert set(reader.top_k("u", exclude_seen=False).item_ids) == set(TITLES)


def test_many_viewers_are_read_in_their_order(world):
    users = [f"u{n}" for n in range(60)]
    learned = [user_id for n, user_id in enumerate(users) if n % 3]
    world.learn(*(event(u, f"{TASTES[int(u[1:]) % 3]}-0", now_ms()) for u in learned))
    with world.reader() as reader:
        reads = reader.get_many(users)
        assert [read.user_id for read in reads] == users
        vectors = blend_many(reads, now_ms())
        for n, (read, vector) in enumerate(zip(reads, vectors, strict=True)):
            assert read.status is (Status.FRESH if n % 3 else Status.COLD)
            assert vector is None if n % 3 == 0 else int(vector.argmax()) == n % 3


def test_a_killed_redis_degrades_reads_and_its_return_mends_them(own_redis, tmp_path, kind):
    world = World(own_redis.url, tmp_path, kind)
    world.publish()
    world.learn(event("u", "comedy-1", now_ms()))
    world.vouch()
    with world.client, world.reader() as reader:
        assert reader.get("u").status is Status.FRESH
        own_redis.kill()
        read, answer = reader.get("u"), reader.top_k("u", k=2)
        assert (read.status, read.vectors) == (Status.DEGRADED, None)
        assert read.age_seconds is not None
        assert (answer.status, list(answer.item_ids)) == (Status.DEGRADED, POPULAR[:2])
        assert (read.error, answer.error) == ("connection", "circuit_open")
        own_redis.start()
        eventually(lambda: reader.get("u").status is not Status.DEGRADED)
        world.vouch()
        eventually(lambda: reader.get("u").status is Status.FRESH)
        assert reader.top_k("u", k=1).item_ids == ("comedy-0",)


def test_a_frozen_redis_costs_one_time_out_and_no_more(own_redis, tmp_path, kind):
    world = World(own_redis.url, tmp_path, kind)
    world.publish()
    world.learn(event("u", "comedy-1", now_ms()))
    world.vouch()
    with world.client, world.reader(timeout_seconds=0.5) as reader:
        eventually(lambda: reader.get("u").status is Status.FRESH)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            errors = [reader.get("u").error for _ in range(20)]
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        assert errors[0] == "timeout"
        assert errors.count("timeout") <= 2  # one a second; the machine may have been slow
        assert set(errors) == {"timeout", "circuit_open"}
        # The late answer about one viewer must not become the answer about the next.
        found = eventually(lambda: (read := reader.get("nobody")).error is None and read)
        assert found.status is Status.COLD
        eventually(lambda: reader.get("u").status is Status.FRESH)


def test_a_reader_may_start_before_redis_and_before_the_first_model(own_redis, tmp_path, kind):
    own_redis.kill()
    world = World(own_redis.url, tmp_path, kind)
    with world.client, world.reader() as reader:
        assert reader.get("u").status is Status.DEGRADED
        assert reader.top_k("u").item_ids == ()
        own_redis.start()
        eventually(lambda: reader.get("u").status is Status.COLD)
        assert reader.top_k("u").error == "no_model"
        world.publish()
        world.learn(event("u", "comedy-1", now_ms()))
        world.vouch()
        eventually(lambda: reader.top_k("u", k=1).item_ids == ("comedy-0",))
        eventually(lambda: reader.get("u").status is Status.FRESH)


def test_the_command_line_shows_what_readers_see(world, monkeypatch):
    monkeypatch.setenv("STREAMER__REDIS__URL", world.url)
    monkeypatch.setenv("STREAMER__MODELS__DIRECTORY", str(world.models))
    world.learn(event("u", "comedy-1", now_ms()))
    shown = CliRunner().invoke(cli, ["get", "u", "--json", "-k", "1"], catch_exceptions=False)
    answer = json.loads(shown.output)
    assert (answer["status"], answer["ranked_by"]) == ("fresh", "taste")
    assert answer["top"][0]["item_id"] == "comedy-0"
    assert [entry["item_id"] for entry in answer["history"]] == ["comedy-1"]
