"""Logs on a terminal and in service: a traceback is of lines of code, never of values."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from streamer.log import configure_logging

configure_logging("info", {form!r})

def learn(user_id):
    raise ValueError("it failed")

try:
    learn("".join(["viewer", "-17"]))
except ValueError as error:
    structlog.get_logger().error("learner_failed", exc_info=error)
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variables(form):
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(form=form)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ValueError: it failed" in ended.stderr
    assert "Traceback (most recent call last)" in ended.stderr
    assert "viewer-17" not in ended.stderr
    if form == "json":
        [line] = ended.stderr.splitlines()
        assert json.loads(line)["event"] == "learner_failed"
