"""The judge is judged: a loss is found, the golden run is the oracle's, the proxy does harm."""

import socket
import time
from contextlib import ExitStack

import oracle
import pytest
from chaos.harness import different_keys, golden_histories
from chaos.recording import STEP_MS, disturbed, in_order, record
from chaos.report import Row, table
from chaos.tcp_proxy import TcpProxy
from integration.worker_process import BASE_MS
from waiting import eventually

from streamer.host.ports import LOOPBACK
from streamer.pipeline.records import Partition, Record

PLACE = Partition("play", 0)


def records_of(sent_ones):
    """As they would be in a log that was written a year later."""
    year_ms = 365 * 86_400_000
    return [
        Record(PLACE, offset, BASE_MS + year_ms + offset, sent.key, sent.value)
        for offset, sent in enumerate(sent_ones)
    ]


def test_the_golden_run_is_what_the_oracle_replays_event_by_event():
    records = records_of(disturbed(record(seed=4, n_events=1500, n_users=20), seed=4))
    verdicts = (oracle.verdict(each.value, each.timestamp_ms) for each in records)
    states = oracle.replay(filter(None, verdicts))
    assert any(state.forgotten_before_ms for state in states.values())
    assert golden_histories(records) == {
        oracle.history_key(who): state.to_bytes()
        for who, state in states.items()
        if state != oracle.State()
    }


def test_equal_seeds_make_equal_recordings_in_which_everybody_is():
    log = record(seed=4, n_events=300, n_users=100)
    assert log == record(seed=4, n_events=300, n_users=100)
    assert log != record(seed=5, n_events=300, n_users=100)
    assert len(golden_histories(records_of(in_order(log)))) == 100
    assert [time_ms for time_ms, _ in log] == [BASE_MS + STEP_MS * n for n in range(300)]


def test_one_event_that_is_missing_is_found():
    records = records_of(in_order(record(seed=4, n_events=300, n_users=100)))
    golden = golden_histories(records)
    assert different_keys(golden, golden_histories(records)) == set()
    missing = different_keys(golden, golden_histories(records[1:]))
    assert missing == {oracle.history_key(oracle.verdict(records[0].value, 1 << 47).user_id)}
    (key,) = missing
    stranger = {**golden, "st:h:{00}:stranger": golden[key]}
    assert different_keys(golden, stranger) == {"st:h:{00}:stranger"}


def test_the_table_names_what_did_not_finish():
    rows = [
        Row("workers are killed", {"kill -9": 50}, 200_000, 5_000, 0, 99.6),
        Row("redis is frozen", {}, 0, 0, None, 3.0),
    ]
    lines = table(rows)
    assert " ".join(lines[1].split()) == "workers are killed 50 kill -9 200,000 5,000 0 100"
    assert "unfinished" in lines[2]
    assert len(set(map(len, lines))) == 1


# --- the proxy ----------------------------------------------------------------------------------


@pytest.fixture
def network():
    """A proxy before an echo server, and a function that connects through it."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        proxy = stack.enter_context(TcpProxy(server.getsockname()[1]))

        def connect():
            client = socket.create_connection((LOOPBACK, proxy.port), timeout=10)
            stack.callback(client.close)
            peer, _ = server.accept()
            peer.settimeout(10)
            stack.callback(peer.close)
            return client, peer

        yield proxy, connect


def ensure_well(client, peer):
    for one, other in ((client, peer), (peer, client)):
        one.sendall(b"hello")
        assert other.recv(5, socket.MSG_WAITALL) == b"hello"


def is_gone(sock):
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def test_a_proxy_forwards_both_ways_and_to_its_present_target(network):
    proxy, connect = network
    client, peer = connect()
    ensure_well(client, peer)
    peer.close()
    assert is_gone(client)
    with socket.create_server((LOOPBACK, 0)) as other:
        proxy.target_port = other.getsockname()[1]
        with socket.create_connection((LOOPBACK, proxy.port), timeout=10) as client:
            peer, _ = other.accept()
            with peer:
                ensure_well(client, peer)


def test_a_delay_holds_bytes_back_and_loses_none(network):
    proxy, connect = network
    client, peer = connect()
    proxy.delay(0.2)
    started = time.monotonic()
    ensure_well(client, peer)
    assert time.monotonic() - started >= 0.4
    assert proxy.harmed["delayed"] == 2
    proxy.heal()
    ensure_well(client, peer)


def test_a_cut_ends_both_sides_and_new_connections_are_well(network):
    proxy, connect = network
    client, peer = connect()
    ensure_well(client, peer)
    proxy.cut()
    assert is_gone(client)
    assert is_gone(peer)
    assert proxy.harmed["cut"] == 1
    ensure_well(*connect())


def test_of_a_half_open_connection_only_the_server_knows(network):
    proxy, connect = network
    client, peer = connect()
    ensure_well(client, peer)
    proxy.half_open()
    assert is_gone(peer)
    client.sendall(b"is anybody there?")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(1)
    ensure_well(*connect())


def test_swallowed_replies_never_come_and_their_connection_cannot_go_on(network):
    proxy, connect = network
    client, peer = connect()
    proxy.swallow()
    client.sendall(b"request")
    assert peer.recv(7, socket.MSG_WAITALL) == b"request"
    peer.sendall(b"reply")
    eventually(lambda: proxy.harmed["swallowed"] == 1)
    untouched = connect()
    proxy.heal()
    assert is_gone(client)
    ensure_well(*untouched)


def test_a_proxy_that_refuses_ends_new_connections_at_once(network):
    proxy, connect = network
    client, _ = connect()
    proxy.refuse()
    assert is_gone(client)
    with socket.create_connection((LOOPBACK, proxy.port), timeout=10) as refused:
        assert is_gone(refused)
    proxy.heal()
    ensure_well(*connect())
