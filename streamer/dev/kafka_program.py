"""Apache Kafka's program: Java from this machine, the jars from Maven, once, into a user's cache.

Kafka publishes no package for pip, and its release archive is three times the size of what a
broker needs. Maven Central has every jar, and Maven checks each against its checksum.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamer.dev.processes import say
from streamer.errors import TransientError
from streamer.host.tether import tethered

KAFKA_VERSION: Final = "4.4.0"
MIN_JAVA: Final = 17
DOWNLOAD_TIMEOUT_SECONDS: Final = 900
JAVA_TIMEOUT_SECONDS: Final = 30
INSTALL_HINT: Final = "`apt install openjdk-17-jre-headless maven`, `brew install openjdk maven`"

POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamer</groupId>
  <artifactId>local-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


@dataclass(frozen=True, slots=True)
class KafkaProgram:
    """What it takes to run a broker: a Java that is new enough, and a folder of jars."""

    java: str
    jars: Path
    version: str = KAFKA_VERSION

    def command(self, main_class: str, options: Sequence[str] = ()) -> list[str]:
        """Return the command that runs one of Kafka's main classes."""
        return [self.java, *options, "-cp", f"{self.jars}/*", main_class]


def find_kafka_program() -> KafkaProgram:
    """Return Kafka's program, downloading its jars if this user has none yet (43 MB, once).

    Raises:
        TransientError: Java or Maven is missing, or the download failed; says what to do.
    """
    java = find_java(os.environ)
    jars = cache_folder(os.environ) / f"kafka-{KAFKA_VERSION}"
    ensure_folder(jars, download_jars)
    return KafkaProgram(java, jars)


def find_java(environ: Mapping[str, str]) -> str:
    """Return the path of a Java that can run Kafka: ``JAVA_HOME``'s, else the one on the PATH.

    Raises:
        TransientError: There is none, or it is too old.
    """
    home = environ.get("JAVA_HOME", "")
    path = environ.get("PATH")
    java = shutil.which("java", path=f"{home}/bin" if home else path) or shutil.which(
        "java", path=path
    )
    if java is None:
        raise TransientError(f"no java on the PATH; Kafka needs Java {MIN_JAVA}: {INSTALL_HINT}")
    answer = subprocess.run(
        [java, "-version"],
        capture_output=True,
        text=True,
        timeout=JAVA_TIMEOUT_SECONDS,
        check=False,
    )
    version = java_major_version(answer.stderr)
    if version < MIN_JAVA:
        raise TransientError(
            f"{java} is Java {version or 'of an unknown version'}; "
            f"Kafka needs {MIN_JAVA} or later: {INSTALL_HINT}"
        )
    return java


def java_major_version(text: str) -> int:
    """Return the major version in the output of ``java -version``, or 0 if there is none.

    Java 8 and older call themselves 1.8 and so on: any such answer is 1.
    """
    found = re.search(r'version "(\d+)', text)
    return int(found[1]) if found else 0


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return this user's cache folder for streamer, by the XDG base directory rules."""
    base = environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say to ignore a relative path.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "streamer"


def ensure_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make ``folder`` exist with all that ``fill`` puts into a folder, or not at all.

    ``fill`` works in a sibling folder that is renamed when it is whole: an aborted download is
    never taken for a finished one, and of two processes that race, one wins and both are served.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.part-", dir=folder.parent) as part:
        whole = Path(part) / folder.name
        whole.mkdir()
        fill(whole)
        try:
            whole.rename(folder)
        except OSError:
            # A folder that is not empty is never replaced by a rename: another process was first.
            if not folder.is_dir():
                raise


def download_jars(folder: Path) -> None:
    """Have Maven copy Kafka's jars into ``folder``.

    Raises:
        TransientError: Maven is missing or failed; with the end of what it said.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise TransientError(f"no mvn on the PATH; Maven downloads Kafka once: {INSTALL_HINT}")
    say("downloading Apache Kafka by Maven, about 43 MB, once")
    pom = folder.parent / "pom.xml"
    pom.write_text(POM, encoding="utf-8")
    command = [
        *(maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(pom)),
        *("dependency:copy-dependencies", f"-DoutputDirectory={folder}"),
    ]
    try:
        done = subprocess.run(
            tethered(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(
            f"Maven has not downloaded Kafka within {DOWNLOAD_TIMEOUT_SECONDS} s"
        ) from error
    if done.returncode != 0:
        raise TransientError(f"Maven could not download Kafka:\n{done.stdout.strip()[-1500:]}")
