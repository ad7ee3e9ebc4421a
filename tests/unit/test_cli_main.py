"""The frame of the command line: help without imports, one line and an exit code per failure."""

import importlib
import os
import re
import subprocess
import sys
import types

import click
import pytest
from click.testing import CliRunner

from streamer import __version__
from streamer.cli import main as cli_main
from streamer.errors import (
    BrokerUnavailable,
    ConfigError,
    ModelError,
    RejectedRecord,
    RestartNeeded,
    StoreForgot,
    StoreUnavailable,
    StreamerError,
    TransientError,
)

RUN = "from streamer.cli.main import main; main()"


def run_python(program, *arguments, **environ):
    inherited = {name: os.environ[name] for name in os.environ if "STREAMER__" not in name}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=inherited | environ,
    )


@pytest.fixture
def verb(monkeypatch):
    """Put a verb in the place of `streamer worker` that raises what is given."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # main sets them; put them back
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def raising(error):
        @click.command()
        def command():
            if error:
                raise error

        module = types.SimpleNamespace(command=command)
        monkeypatch.setitem(sys.modules, "streamer.cli.worker", module)
        monkeypatch.setattr(sys, "argv", ["streamer", "worker"])

    return raising


def exit_code():
    with pytest.raises(SystemExit) as caught:
        cli_main.main()
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("kafka.group_id is wrong"), 78),
        (TransientError("nobody answers"), 69),
        (StoreUnavailable("Redis is away"), 69),
        (BrokerUnavailable("Kafka is away"), 69),
        (RestartNeeded("again"), 75),
        (ModelError("manifest.json: no"), 1),
        (RejectedRecord("too_large"), 1),
        (StoreForgot("gone"), 1),
        (StreamerError("anything"), 1),
        (None, 0),
    ],
)
def test_an_expected_failure_is_one_line_and_a_telling_exit_code(error, code, verb, capsys):
    verb(error)
    assert exit_code() == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"streamer: {error}\n" if error else "")


def test_a_bug_is_not_hidden(verb):
    verb(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli_main.main()


def test_a_wrong_option_is_exit_2(verb, monkeypatch, capsys):
    verb(None)
    monkeypatch.setattr(sys, "argv", ["streamer", "worker", "--sideways"])
    assert exit_code() == 2
    assert "--sideways" in capsys.readouterr().err


def test_an_unknown_verb_is_exit_2(verb, monkeypatch, capsys):
    verb(None)
    monkeypatch.setattr(sys, "argv", ["streamer", "wroker"])
    assert exit_code() == 2
    assert "wroker" in capsys.readouterr().err


def test_help_lists_every_verb_and_imports_none():
    program = (
        "import sys\n"
        "from streamer.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print(*sorted(name for name in sys.modules if '.' not in name or 'streamer' in name))\n"
    )
    done = run_python(program)
    assert done.returncode == 0, done.stderr
    *text, modules = done.stdout.splitlines()
    for verb_name, summary in cli_main.VERBS.items():
        assert any(
            line.startswith(f"  {verb_name} ") and summary.split()[0] in line for line in text
        )
    ours = [name for name in modules.split() if name.startswith("streamer")]
    assert ours == ["streamer", "streamer.cli", "streamer.cli.main", "streamer.errors"]
    heavy = {"numpy", "redis", "confluent_kafka", "pydantic", "structlog", "prometheus_client"}
    assert not heavy & set(modules.split())


def test_every_verb_of_the_table_is_a_command_that_explains_itself():
    for verb_name in cli_main.VERBS:
        command = importlib.import_module(f"streamer.cli.{verb_name}").command
        result = CliRunner().invoke(command, ["--help"])
        assert result.exit_code == 0, verb_name
        assert len(result.output.splitlines()) > 3


def test_the_version_is_the_packages():
    result = CliRunner().invoke(cli_main.cli, ["--version"])
    assert (result.exit_code, __version__ in result.output) == (0, True)
    assert re.search(r"\d+\.\d+", result.output)


def test_a_wrong_setting_ends_the_real_program_with_78_before_anything_is_opened():
    done = run_python(RUN, "worker", STREAMER__KAFKA__GROUPID="g")
    assert done.returncode == 78
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("streamer: STREAMER__KAFKA__GROUPID is not a setting; known: ")


def test_a_missing_file_ends_the_real_program_with_78(tmp_path):
    done = run_python(RUN, "worker", "--config", str(tmp_path / "missing.toml"))
    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_threads_of_linear_algebra_are_one_unless_somebody_asked_for_more():
    program = (
        "import os, sys\n"
        "from streamer.cli.main import main\n"
        "sys.argv = ['streamer', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(os.environ['OPENBLAS_NUM_THREADS'], os.environ['OMP_NUM_THREADS'])\n"
    )
    done = run_python(program, OMP_NUM_THREADS="3", OPENBLAS_NUM_THREADS="2")
    assert done.stdout.splitlines()[-1] == "2 3"
