"""Ports for servers of this machine, chosen so that a restart finds them free again.

A port that the kernel hands out for ``bind(0)`` lies in the range it also uses for outgoing
connections. While a server on such a port is down, a client that keeps reconnecting can be given
that very port as its own end, connect to itself, and so keep the server from coming back. Ports
below that range cannot be taken this way.
"""

from __future__ import annotations

import secrets
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
# Linux hands out 32768 and up for outgoing connections, macOS and the IANA 49152 and up.
PORTS: Final = range(15_000, 32_000)
MAX_ATTEMPTS: Final = 200


def free_ports(count: int, host: str = LOOPBACK, *, second: int = 0) -> list[int]:
    """Return ``count`` different ports of ``host`` that nobody listens on.

    Args:
        count: How many.
        host: Where.
        second: Some servers take a second port so far above the first; it is free, too.

    Raises:
        OSError: Not one of many ports could be bound.
    """
    # Not the `random` module: tests seed it, and then two of them would try the same ports.
    ports: set[int] = set()
    for _ in range(MAX_ATTEMPTS):
        port = PORTS[secrets.randbelow(len(PORTS))]
        is_free = all(each in PORTS and _is_free(host, each) for each in {port, port + second})
        if port not in ports and is_free:
            ports.add(port)
        if len(ports) == count:
            return sorted(ports)
    raise OSError(f"no {count} free ports on {host} in {PORTS.start} to {PORTS.stop - 1}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
