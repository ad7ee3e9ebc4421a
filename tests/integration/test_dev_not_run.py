import os
import subprocess
import sys
from pathlib import Path


def run_pytest_without_java(tmp_path, **environment):
    empty = tmp_path / "no-programs"
    empty.mkdir()
    test = Path(__file__).with_name("test_topics.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "twice", str(test)]
    return subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "PATH": str(empty),
            "JAVA_HOME": "",
            "STREAMER_REQUIRE": "",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_test_that_cannot_run_is_reported_as_not_run_with_the_reason(tmp_path):
    done = run_pytest_without_java(tmp_path)
    assert done.returncode == 0
    _, _, section = done.stdout.partition(" not run ")
    assert "1 tests, because: no java on the PATH" in section
    assert "test_topics.py::test_creating_topics_twice" in section


def test_a_test_that_cannot_run_fails_where_its_server_is_required(tmp_path):
    done = run_pytest_without_java(tmp_path, STREAMER_REQUIRE="kafka,redis")
    assert done.returncode == 1
    assert "STREAMER_REQUIRE asks for kafka: no java" in done.stdout
