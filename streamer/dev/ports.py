"""Loopback ports for local servers; see `streamer.host.ports`."""

from __future__ import annotations

from streamer.host.ports import LOOPBACK, PORTS, free_ports

__all__ = ["LOOPBACK", "PORTS", "free_ports"]
