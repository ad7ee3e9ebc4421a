import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

LIMIT_SECONDS = 20.0
STUCK = """
import os, threading, time
from streamer.runtime import guards
from streamer.runtime.guards import Shutdown, Watchdog
guards.CHECK_SECONDS = 0.05
guards.CLOSE_SECONDS = 0.2
def say(word):
    os.write(1, word.encode() + b"\\n")  # print may not be called from inside of print
def hang():
    say("ready")
    threading.Event().wait()  # as a call that never returns
"""


@contextmanager
def running(script):
    """Run a script that says "ready"; it ends with the test, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process):
    """Return exit code, what was said, and what went to stderr."""
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, out.split(), err


def test_a_loop_that_stands_still_is_ended_with_exit_code_70():
    script = """
Watchdog(lambda: started, 0.3).start() if (started := time.monotonic()) else None
hang()
"""
    with running(script) as process:
        code, _, err = ended(process)
    assert code == 70
    assert "the loop has not turned for" in err


def test_a_loop_that_turns_is_left_alone():
    script = """
watchdog = Watchdog(time.monotonic, 0.1)
watchdog.start()
time.sleep(0.5)
watchdog.stop()
say("stopped")
"""
    with running(script) as process:
        code, said, err = ended(process)
    assert (code, said, err) == (0, ["stopped"], "")


def test_a_watchdog_that_was_stopped_bites_nobody():
    script = """
started = time.monotonic()
watchdog = Watchdog(lambda: started, 0.3)
watchdog.start()
watchdog.stop()
time.sleep(0.6)
say("alive")
"""
    with running(script) as process:
        assert ended(process)[:2] == (0, ["alive"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_process_ends_by_itself(number):
    script = """
stop = threading.Event()
Shutdown(stop.set, 30.0).install()
say("ready")
while not stop.wait(0.01):
    pass
say("drained")
"""
    with running(script) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert ended(process) == (0, ["drained"], "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(number):
    script = """
Shutdown(lambda: say("asked"), 30.0).install()
hang()
"""
    with running(script) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        code, _, err = ended(process)
    assert code == 128 + number
    assert "asked twice to stop" in err


def test_a_shutdown_that_takes_too_long_is_ended_at_the_deadline():
    script = """
Shutdown(lambda: say("asked"), 0.3).install()
hang()
"""
    with running(script) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code, _, err = ended(process)
    assert code == 128 + signal.SIGTERM
    assert 0.3 < time.monotonic() - started < 5
    assert "the shutdown took too long" in err


def test_a_stderr_that_nobody_reads_does_not_keep_the_process():
    script = """
import os
read_end, write_end = os.pipe()
os.dup2(write_end, 2)
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(65536))
except BlockingIOError:
    os.set_blocking(2, True)
Watchdog(lambda: time.monotonic() - 10, 0.3).start()
hang()
"""
    with running(script) as process:
        assert process.stdout.readline() == "ready\n"
        assert process.wait(LIMIT_SECONDS) == 70
