import json
import socket

import pytest
from click.testing import CliRunner

from streamer.cli.worker import (
    command,
    worker_environ,
    worker_ports,
    write_targets,
)
from streamer.config import MetricsSection, load_settings
from streamer.errors import ConfigError


def test_ports_follow_the_configured_one():
    assert worker_ports(MetricsSection(port=9464), 3) == [9464, 9465, 9466]
    assert worker_ports(MetricsSection(port=65_533), 3)[-1] == 65_535


def test_more_processes_than_there_are_ports_are_a_configuration_error():
    with pytest.raises(ConfigError, match=r"\[metrics\] port.*65534 to 65536.*65535"):
        worker_ports(MetricsSection(port=65_534), 3)


def test_port_0_takes_different_free_ones():
    ports = worker_ports(MetricsSection(port=0), 20)
    assert len(set(ports)) == 20
    with socket.create_server(("127.0.0.1", ports[7])):
        pass


def test_a_host_that_is_not_ours_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"\[metrics\] host"):
        worker_ports(MetricsSection(host="192.0.2.1", port=0), 1)


@pytest.mark.parametrize(
    ("host", "name"),
    [("10.1.2.3", "10.1.2.3"), ("0.0.0.0", socket.gethostname())],  # noqa: S104
)
def test_targets_are_written_as_prometheus_reads_them(tmp_path, host, name):
    path = tmp_path / "targets.json"
    path.write_text("what was there before")
    write_targets(path, host, [9464, 9465])
    assert json.loads(path.read_text()) == [{"targets": [f"{name}:9464", f"{name}:9465"]}]
    assert list(tmp_path.iterdir()) == [path]


def test_targets_that_cannot_be_written_are_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"--targets .*cannot be written"):
        write_targets(tmp_path / "nowhere" / "targets.json", "127.0.0.1", [9464])


@pytest.mark.parametrize(
    "variable",
    [
        "STREAMER__METRICS__PORT",
        "STREAMER__METRICS__port",
        "STREAMER__metrics__PORT",
        "STREAMER__METRICS__PORT_FILE",
    ],
)
def test_a_worker_has_its_own_port_however_the_environment_spells_the_common_one(
    tmp_path, variable
):
    value = tmp_path / "port"
    value.write_text("9000")
    common = str(value) if variable.endswith("_FILE") else "9000"
    environ = {variable: common, "STREAMER__METRICS__HOST": "127.0.0.2", "PATH": "/bin"}
    theirs = worker_environ(environ, 9002)
    settings = load_settings(environ=theirs)
    assert (settings.metrics.port, settings.metrics.host) == (9002, "127.0.0.2")
    assert theirs["PATH"] == "/bin"


@pytest.mark.parametrize(
    "arguments", [["--targets", "targets.json"], ["--processes", "0"], ["--processes", "257"]]
)
def test_what_makes_no_sense_is_a_usage_error(arguments):
    assert CliRunner().invoke(command, arguments).exit_code == 2
