"""One server program under our control: started, watched, stopped, killed and started again.

On Linux a server cannot outlive the process that started it, even if that one is killed
(`streamer.host.tether`). Elsewhere it is stopped whenever Python gets to run its clean-up.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import current_thread, main_thread
from typing import Final

from streamer.errors import TransientError
from streamer.host.tether import tethered

READY_POLL_SECONDS: Final = 0.02
KILL_TIMEOUT_SECONDS: Final = 10.0
LOG_TAIL_BYTES: Final = 4_000


def say(message: str) -> None:
    """Tell the person at the terminal, on stderr: stdout belongs to programs."""
    print(f"streamer: {message}", file=sys.stderr, flush=True)


class ServerProcess:
    """A server program; may be started again after it was stopped or killed.

    Args:
        name: What messages call it.
        command: The program and its arguments.
        folder: Where it runs and where ``NAME.log`` collects all it says, over all its starts.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log_path = folder / f"{name.lower().replace(' ', '-')}.log"
        self._command = list(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, for signals; of the last start if it is not running."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, is_ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Start the program and return once ``is_ready``; nothing runs if it does not get ready.

        Only from the main thread: on Linux a server ends with the thread that started it.

        Raises:
            TransientError: It ended, or was not ready in time; with the end of its log.
        """
        assert not self.is_running, f"{self.name} runs already, as process {self.pid}"
        assert current_thread() is main_thread(), "on Linux a server ends with the starting thread"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                tethered(self._command),
                cwd=self._folder,
                # Held open for as long as we live: a program may take its end as a sign to stop.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us alone; we stop the servers in our order.
                start_new_session=True,
            )
        try:
            self._wait_until(is_ready, timeout_seconds)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_seconds: float) -> None:
        """Ask it to end, wake it if it is frozen, kill it after the timeout. May be repeated."""
        if self.is_running:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            self._reap(timeout_seconds)
        self.kill()

    def kill(self) -> None:
        """End it at once, without a chance to save anything. May be repeated."""
        if self.is_running:
            self._signal(signal.SIGKILL)
            self._reap(KILL_TIMEOUT_SECONDS)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def describe_end(self) -> str:
        """Say how a server ended that should be running, with the end of its log."""
        assert self._process is not None, f"{self.name} was never started"
        code = self._process.returncode
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"{self.name} has ended ({how}); its log ends with:\n{self.log_tail()}"

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        if not self.log_path.exists():
            return "(nothing)"
        text = self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return text.strip() or "(nothing)"

    def _wait_until(self, is_ready: Callable[[], bool], timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.is_running:
                raise TransientError(self.describe_end())
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{self.name} was not ready after {timeout_seconds:g} s; "
                    f"its log ends with:\n{self.log_tail()}"
                )
            time.sleep(READY_POLL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        # Popen, unlike os.kill, never signals an id that it has reaped: it may be someone else's.
        assert self._process is not None, f"{self.name} was never started"
        self._process.send_signal(number)

    def _reap(self, timeout_seconds: float) -> None:
        assert self._process is not None, f"{self.name} was never started"
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return
