"""Writing imported vectors, on a real Redis and on a real Redis Cluster."""

import numpy as np
import oracle
import pytest
from contracts.test_cluster_store import ClusterBench
from contracts.test_feature_store import NOON_MS, RedisBench, forget, user_writes, watched

from streamer.errors import StoreUnavailable
from streamer.factors import FeatureDtype, ImportStamp, encode_imported
from streamer.stores import ImportedVectors, connect
from streamer.stores.imported import MAX_USERS_PER_CALL

USERS = [f"u{number}" for number in range(2 * MAX_USERS_PER_CALL + 3)]
STAMP = ImportStamp(0xA1, NOON_MS, FeatureDtype.F16, NOON_MS)
VALUES = encode_imported(np.arange(1, 1 + 4 * len(USERS), dtype=np.float32).reshape(-1, 4), STAMP)


@pytest.fixture(params=["standalone", "cluster"])
def bench(request):
    if request.param == "standalone":
        bench = RedisBench(request.getfixturevalue("redis_url"))
    else:
        request.getfixturevalue("cluster_url")
        bench = ClusterBench(request.getfixturevalue("redis_cluster"))
    yield bench
    if request.param == "standalone":
        bench.client.close()
    else:
        bench.close()


def ttl_ms(bench, key):
    return bench.client.execute_command("PTTL", key)


def test_every_value_is_under_its_users_key(bench):
    vectors = ImportedVectors(bench.client, "rows-2")
    vectors.prepare()
    assert vectors.write(USERS, VALUES) == 0
    assert vectors.write([], []) == 0
    for user, value in zip(USERS, VALUES, strict=True):
        assert bench.value(oracle.imported_key(user, "rows-2")) == value
    assert ttl_ms(bench, oracle.imported_key("u0", "rows-2")) == -1
    assert bench.client.execute_command("SMEMBERS", "st:variants") == {b"rows-2"}


def test_writing_again_replaces_also_what_is_no_string(bench):
    vectors = ImportedVectors(bench.client, "default")
    bench.put(oracle.imported_key("u0", "default"), b"something")
    bench.client.execute_command("HSET", oracle.imported_key("u1", "default"), "a", "b")
    for _ in range(2):
        assert vectors.write(USERS[:2], VALUES[:2]) == 0
    for user, value in zip(USERS[:2], VALUES[:2], strict=True):
        assert bench.value(oracle.imported_key(user, "default")) == value


def test_vectors_expire_if_they_are_told_to(bench):
    ImportedVectors(bench.client, "default", expire_ms=90_000).write(["u"], VALUES[:1])
    assert 60_000 < ttl_ms(bench, oracle.imported_key("u", "default")) <= 90_000


@pytest.mark.parametrize(
    ("trained_through_ms", "forgotten_before_ms", "is_left_out"),
    [
        (0, 1, True),  # nobody knows what it was trained on
        (NOON_MS, NOON_MS + 1, True),
        (NOON_MS, NOON_MS, True),
        (NOON_MS, NOON_MS - 1, False),
        (NOON_MS, 0, False),
        (0, 0, False),
    ],
)
def test_who_was_forgotten_after_the_training_is_left_out(
    bench, trained_through_ms, forgotten_before_ms, is_left_out
):
    bench.put(
        oracle.history_key("ann"),
        watched("x", forgotten_before_ms=forgotten_before_ms).to_bytes(),
    )
    bench.put(oracle.history_key("ben"), watched("x").to_bytes())
    vectors = ImportedVectors(bench.client, "default", trained_through_ms=trained_through_ms)
    assert vectors.write(["ann", "ben", "cleo"], VALUES[:3]) == int(is_left_out)
    found = bench.value(oracle.imported_key("ann", "default"))
    assert found == (None if is_left_out else VALUES[0])
    assert bench.value(oracle.imported_key("ben", "default")) == VALUES[1]
    assert bench.value(oracle.imported_key("cleo", "default")) == VALUES[2]


def test_forgetting_deletes_the_vectors_of_every_variant_and_an_import_does_not_revive(bench):
    before = watched("x")
    for variant in ("default", "rows-2"):
        vectors = ImportedVectors(bench.client, variant, trained_through_ms=NOON_MS)
        vectors.prepare()
        vectors.write(["ann", "ben"], VALUES[:2])
    bench.put(oracle.history_key("ann"), before.to_bytes())
    bench.store.write(user_writes(forget("ann", before)))
    for variant in ("default", "rows-2"):
        assert bench.value(oracle.imported_key("ann", variant)) is None
        assert bench.value(oracle.imported_key("ben", variant)) == VALUES[1]
    late = ImportedVectors(bench.client, "default")
    assert late.write(["ann"], VALUES[:1]) == 1
    assert bench.value(oracle.imported_key("ann", "default")) is None


def test_a_history_of_unknown_form_forgets_nobody(bench):
    bench.put(oracle.history_key("ann"), b"SH\2 a form of next year, with more than 24 bytes")
    bench.put(oracle.history_key("ben"), b"SH\1")
    bench.client.execute_command("HSET", oracle.history_key("cleo"), "a", "b")
    assert ImportedVectors(bench.client, "default").write(["ann", "ben", "cleo"], VALUES[:3]) == 0


def test_a_redis_that_is_away_is_unavailable(bench):
    client = connect("redis://127.0.0.1:1/0", timeout_seconds=0.2)
    with pytest.raises(StoreUnavailable):
        ImportedVectors(client, "default").write(["u"], VALUES[:1])
    with pytest.raises(StoreUnavailable):
        ImportedVectors(client, "default").prepare()
