"""A network between a worker and its servers that is slow, breaks, and keeps replies."""

from chaos.tcp_proxy import TcpProxy

REDIS_TIMEOUT_SECONDS = 0.5
KAFKA_TIMEOUTS = {
    # Of a request; 60 s by default, which is how long a half-open connection may go unnoticed.
    "kafka__client__socket_timeout_ms": 2000,
    "kafka__client__socket_connection_setup_timeout_ms": 2000,
}


def harm(run, proxy, timeout_seconds, n_hits):
    """Feed, and harm the connections in every way, until each way has hit so often."""
    ways = {
        "delayed": lambda: proxy.delay(0.3 * timeout_seconds),
        "cut": proxy.cut,
        "half_opened": proxy.half_open,
        "swallowed": proxy.swallow,
        "refused": proxy.refuse,
    }
    for kind, start in ways.items():
        before, n_before = run.consumed(), proxy.harmed[kind]
        run.feed(0.9 / len(ways), seconds=2.0)
        run.wait_for_progress(before)
        start()
        wanted = n_before + n_hits[kind]

        def has_struck(kind=kind, start=start, wanted=wanted):
            """Connections that were not there yet are harmed too, where that is done once."""
            if kind in {"cut", "half_opened"} and proxy.harmed[kind] < wanted:
                start()
            return proxy.harmed[kind] >= wanted

        run.wait_until(has_struck)
        proxy.heal()
        run.injected[kind] += proxy.harmed[kind] - n_before


def test_the_connections_to_redis_fail_in_every_way(run_on, broker, own_redis):
    with TcpProxy(own_redis.port) as proxy:
        run = run_on(broker.server.bootstrap_servers, f"redis://{proxy.address}/0")
        run.open()
        run.start_workers(redis__timeout_seconds=REDIS_TIMEOUT_SECONDS)
        n_hits = {"delayed": 30, "cut": 3, "half_opened": 3, "swallowed": 9, "refused": 9}
        harm(run, proxy, REDIS_TIMEOUT_SECONDS, n_hits)
        assert sum(w.total("redis_errors_total", kind="timeout") for w in run.members)
        run.finish()


def test_the_connections_to_kafka_fail_in_every_way(run, broker):
    run.open()
    run.start_workers(kafka__bootstrap_servers=broker.proxy.address, **KAFKA_TIMEOUTS)
    n_hits = {"delayed": 30, "cut": 3, "half_opened": 3, "swallowed": 9, "refused": 9}
    harm(run, broker.proxy, 1.0, n_hits)
    run.finish()
