"""One port for /metrics, /livez and /readyz.

Liveness is about this process alone: a broker or a Redis that is away must not restart the fleet.
Readiness is about being useful: never ready while nothing could move.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from streamer.errors import ConfigError
from streamer.metrics import WorkerState
from streamer.runtime.observer import LoopObserver

STOP_POLL_SECONDS: Final = 0.1
MAX_CLIENTS: Final = 16
CLIENT_SECONDS: Final = 5.0
"""A request and its answer, together."""
SILENCE_SECONDS: Final = 10.0
"""Without an answer from Kafka for so long, a worker with partitions is not ready."""
STILL_SECONDS: Final = 10.0
"""A loop that has not turned for so long is not ready: the longest wait within a turn is 1 s."""
LIVE_SECONDS: Final = 60.0
"""A loop that has not turned for so long is not alive; well below max.poll.interval.ms / 2."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes say, and why.

    Attributes:
        is_live: The loop turns.
        is_ready: It consumes, or rightly has nothing to consume.
        state: What the loop is doing.
        heartbeat_age_seconds: Since it last turned.
        partitions: How many are ours.
        missing_topics: Event topics that Kafka does not have: nothing can come from them.
        variants_out_of_service: Variants whose learner failed: their features are not replaced.
            The stream goes on, and so the worker is ready.
    """

    is_live: bool
    is_ready: bool
    state: str
    heartbeat_age_seconds: float
    partitions: int
    missing_topics: Sequence[str] = ()
    variants_out_of_service: Sequence[str] = ()


def health_of(
    observer: LoopObserver,
    kafka_answered_at: Callable[[], float] = time.monotonic,
    missing_topics: Callable[[], Collection[str]] = frozenset,
    out_of_service: Callable[[], Collection[str]] = frozenset,
) -> Health:
    """Judge a loop by what it last said of itself, and Kafka by what it last answered.

    Args:
        observer: Of the loop.
        kafka_answered_at: When Kafka last answered, on the monotonic clock.
        missing_topics: Event topics that do not exist, as Kafka said last. Without one of them
            half of the events may be lost to a mistyped name, so the worker is not ready.
        out_of_service: Variants whose learner failed.
    """
    missing = sorted(missing_topics())
    age = time.monotonic() - observer.turned_at
    is_live = age < LIVE_SECONDS
    moves = observer.present_state in {WorkerState.RUNNING, WorkerState.IDLE}
    if observer.n_owned:
        moves &= time.monotonic() - kafka_answered_at() < SILENCE_SECONDS
    return Health(
        is_live=is_live,
        is_ready=age < STILL_SECONDS and moves and not missing,
        state=str(observer.present_state),
        heartbeat_age_seconds=round(age, 3),
        partitions=observer.n_owned,
        missing_topics=missing,
        variants_out_of_service=sorted(out_of_service()),
    )


class HealthServer:
    """Serves scrapes and probes from threads of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        health: Callable[[], Health],
    ) -> None:
        """Bind at once; 0 takes a free port.

        Raises:
            ConfigError: The address cannot be bound.
        """
        self._metrics_app = make_wsgi_app(registry)
        self._health = health
        try:
            self._server = make_server(
                host, port, self._serve, server_class=_ThreadingServer, handler_class=_QuietHandler
            )
        except OSError as error:
            raise ConfigError(
                f"[metrics] port: cannot listen on {host}:{port}: {error.strerror}; 0 takes a free "
                "one"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_POLL_SECONDS,), name="health", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.server_port)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            body: Iterable[bytes] = self._metrics_app(environ, start_response)
            return body
        health = self._health()
        verdicts = {"/livez": health.is_live, "/readyz": health.is_ready}
        if path not in verdicts:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"try /metrics, /livez or /readyz\n"]
        status = "200 OK" if verdicts[path] else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(asdict(health)).encode() + b"\n"]


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    """Answers a bounded number of clients at a time, each within a bounded time."""

    daemon_threads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  socketserver's own
        super().__init__(*args, **kwargs)
        self._places = threading.BoundedSemaphore(MAX_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  a socket
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        deadline = threading.Timer(CLIENT_SECONDS, _hang_up, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say nothing: a client that went away is its own affair."""


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401  the signature is http.server's
        """Say nothing: probes come every few seconds."""
