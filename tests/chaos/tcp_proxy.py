"""A TCP proxy whose connections can be harmed while they are in use.

One event loop in a thread of its own. Each fault is counted where it happens, in `harmed`, so that
a test can tell whether it hit anything. What the network never does is not done here either: bytes
are late, or missing to the end of the connection, but nothing is left out of one that goes on.
"""

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass

from streamer.host.ports import LOOPBACK, free_ports

CHUNK_BYTES = 65_536
CALL_SECONDS = 10


@dataclass(eq=False)
class Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    """None while it is being opened; a fault may be earlier."""
    is_cut: bool = False
    is_half_open: bool = False
    has_lost_bytes: bool = False

    def cut(self):
        self.is_cut = True
        self.client.transport.abort()
        self.abandon_server()

    def abandon_server(self):
        if self.server is not None:
            self.server.transport.abort()


class TcpProxy:
    """Forwards a loopback port to another one, until told otherwise; a context manager."""

    def __init__(self, target_port, port=0):
        self.target_port = target_port
        """Where new connections go; may be changed at any time."""
        self.port = port or free_ports(1)[0]
        self.harmed = Counter()
        """What the faults hit: chunks delayed, connections cut, half_opened or refused, replies
        swallowed."""
        self._delay_seconds = 0.0
        self._is_swallowing = False
        self._is_refusing = False
        self._connections = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self):
        return f"{LOOPBACK}:{self.port}"

    def __enter__(self):
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, LOOPBACK, self.port))
        return self

    def __exit__(self, *_):
        self.refuse()
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    # the faults

    def delay(self, seconds):
        """Let every chunk wait, both ways, from now on; 0 ends it."""
        self._delay_seconds = seconds

    def cut(self):
        """Reset every connection; new ones are well."""
        self._call(self._cut())

    def half_open(self):
        """Let the server's side of every connection go, and never tell the client's.

        New connections are well: as behind a firewall that has forgotten the old ones.
        """
        self._call(self._half_open())

    def swallow(self):
        """Let requests through and no reply, on every connection, until `heal`."""
        self._is_swallowing = True

    def refuse(self):
        """Reset every connection and every new one, until `heal`."""
        self._is_refusing = True
        self.cut()

    def heal(self):
        """Be well again; a connection that has lost bytes cannot go on and is reset."""
        self._delay_seconds, self._is_swallowing, self._is_refusing = 0.0, False, False
        self._call(self._cut(lambda connection: connection.has_lost_bytes))

    # inside the loop

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_SECONDS)

    async def _close(self):
        """Stop listening; what was served has been reset, and ends when its delays are over."""
        self._server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        if serving:
            await asyncio.wait(serving, timeout=CALL_SECONDS / 2)

    async def _cut(self, is_doomed=lambda _: True):
        for connection in list(filter(is_doomed, self._connections)):
            self.harmed["cut"] += 1
            connection.cut()

    async def _half_open(self):
        for connection in self._connections:
            if not connection.is_half_open:
                self.harmed["half_opened"] += 1
                connection.is_half_open = True
                connection.abandon_server()

    async def _serve(self, from_client, client):
        if self._is_refusing:
            self.harmed["refused"] += 1
            client.transport.abort()
            return
        connection = Connection(client)
        self._connections.add(connection)
        try:
            from_server, connection.server = await asyncio.open_connection(
                LOOPBACK, self.target_port
            )
            if connection.is_cut or connection.is_half_open:
                connection.abandon_server()
            await asyncio.gather(
                self._pump(from_client, connection.server, connection, is_reply=False),
                self._pump(from_server, client, connection, is_reply=True),
            )
        except OSError:
            pass  # reset by either side, or by us, or nobody listens
        finally:
            self._connections.discard(connection)
            connection.cut()

    async def _pump(self, reader, writer, connection, *, is_reply):
        while True:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                if connection.is_half_open and is_reply:
                    return  # that is the fault: nobody tells the client
                raise
            if not chunk:
                break
            if connection.is_half_open:
                continue  # into the void
            if self._delay_seconds:
                self.harmed["delayed"] += 1
                await asyncio.sleep(self._delay_seconds)
            if is_reply and (self._is_swallowing or connection.has_lost_bytes):
                self.harmed["swallowed"] += 1
                connection.has_lost_bytes = True
                continue
            writer.write(chunk)
            await writer.drain()
        if not (connection.is_half_open and is_reply):
            connection.cut()
