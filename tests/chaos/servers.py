"""Servers as the scenarios need them."""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass

from chaos.tcp_proxy import TcpProxy

from streamer.dev.kafka_server import KafkaServer
from streamer.dev.redis_server import RedisServer
from streamer.host.ports import LOOPBACK, free_ports

QUICK_GROUPS = {
    # A lost member is missed after 3 s: fifty are lost.
    "group.consumer.session.timeout.ms": "3000",
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "500",
}


@dataclass(frozen=True)
class Broker:
    """A Kafka and a proxy before it: who comes through the proxy stays behind it."""

    server: KafkaServer
    proxy: TcpProxy


@contextmanager
def broker_with_a_detour(kafka_program, folder):
    port, controller_port, detour_port, proxy_port = free_ports(4)
    properties = {
        **QUICK_GROUPS,
        "listeners": f"BROKER://{LOOPBACK}:{port},DETOUR://{LOOPBACK}:{detour_port},"
        f"CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"BROKER://{LOOPBACK}:{port},DETOUR://{LOOPBACK}:{proxy_port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,DETOUR:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    server = KafkaServer(kafka_program, folder, properties, (port, controller_port))
    try:
        server.start()
        with TcpProxy(detour_port, proxy_port) as proxy:
            yield Broker(server, proxy)
    finally:
        server.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)


def start_redis(folder, *arguments):
    folder.mkdir()
    server = RedisServer(folder, arguments)
    server.start()
    return server
