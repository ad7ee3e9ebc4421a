"""The demo itself, shortened: the command that a newcomer runs first must never break."""

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(110)
def test_the_demo_proves_that_nothing_is_lost_and_every_vector_is_right(
    kafka_program, redis_executable, tmp_path
):
    result_path = tmp_path / "result.json"
    options = ["--rate", "600", "--seconds", "6", "--json", str(result_path), "--kafka", "real"]
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "demo", *options],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(result_path.read_text())
    assert result["produced"] == 60_000 + 3_600
    assert result["produced"] == result["applied"] + result["dead_lettered"]
    assert result["dead_lettered"] > 0
    assert 0 < result["freshness_seconds"]["p50"] <= result["freshness_seconds"]["p99"]
    assert result["hit_rate"]["fresh"] > 1.3 * result["hit_rate"]["frozen"] > 0
    assert result["verify"]["different"] == 0
    assert result["verify"]["equal"] == result["verify"]["users"] > 500
    assert result["kafka"].startswith("apache-kafka")
    assert done.stdout.splitlines()[-1].startswith("verify: ")
