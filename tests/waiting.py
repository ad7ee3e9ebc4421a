"""Waiting in tests: for a condition, up to a deadline, and never for a fixed time."""

import time

import pytest


def eventually(condition, timeout_seconds=15.0, interval_seconds=0.02):
    """Return the condition's first true value; fail if there is none in time."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_seconds:g} s: {condition}")
        time.sleep(interval_seconds)
    return value
