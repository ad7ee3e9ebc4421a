from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from streamer.dev import kafka_program
from streamer.dev.kafka_program import (
    POM,
    KafkaProgram,
    cache_folder,
    download_jars,
    ensure_folder,
    find_java,
    java_major_version,
)
from streamer.errors import TransientError


def put_a_jar(folder):
    (folder / "kafka.jar").write_text("whole")


def never(folder):
    pytest.fail("downloaded again")


def test_a_folder_is_filled_once(tmp_path):
    ensure_folder(tmp_path / "cache" / "kafka", put_a_jar)
    ensure_folder(tmp_path / "cache" / "kafka", never)
    assert (tmp_path / "cache" / "kafka" / "kafka.jar").read_text() == "whole"


def test_an_aborted_download_leaves_nothing_behind(tmp_path):
    def abort(folder):
        put_a_jar(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_folder(tmp_path / "kafka", abort)
    assert list(tmp_path.iterdir()) == []


def test_of_two_downloads_that_race_the_first_one_stays_and_both_succeed(tmp_path):
    def lose_the_race(folder):
        put_a_jar(folder)
        other = tmp_path / "kafka"
        other.mkdir()
        (other / "kafka.jar").write_text("first")

    ensure_folder(tmp_path / "kafka", lose_the_race)
    assert [path.name for path in tmp_path.iterdir()] == ["kafka"]
    assert (tmp_path / "kafka" / "kafka.jar").read_text() == "first"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
        ('java version "1.8.0_402"', 1),
        ('openjdk version "25" 2025-09-16', 25),
        ("Unable to locate a Java Runtime.", 0),
    ],
)
def test_the_version_of_java_is_read_from_what_it_says(text, version):
    assert java_major_version(text) == version


def test_a_machine_without_java_is_told_what_to_install(tmp_path):
    with pytest.raises(TransientError, match="apt install openjdk"):
        find_java({"PATH": str(tmp_path)})


def test_a_machine_without_maven_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TransientError, match=r"no mvn .* maven"):
        download_jars(tmp_path / "jars")


def test_the_cache_is_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_program.Path, "home", lambda: tmp_path)
    assert cache_folder({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/streamer")
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == tmp_path / ".cache" / "streamer"
    assert cache_folder({}) == tmp_path / ".cache" / "streamer"


def test_the_pom_names_the_version_that_the_program_has():
    program = KafkaProgram("java", Path("jars"))
    versions = {
        element.find("{*}artifactId").text: element.find("{*}version").text
        for element in ET.fromstring(POM).iter("{http://maven.apache.org/POM/4.0.0}dependency")  # noqa: S314  our own text
    }
    assert versions["kafka_2.13"] == program.version
    assert program.command("kafka.Kafka", ["-Xmx1m"]) == [
        "java",
        "-Xmx1m",
        "-cp",
        "jars/*",
        "kafka.Kafka",
    ]
