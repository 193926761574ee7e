"""Finds the Java that everything here runs on, and says what to install if it is not there."""

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from broker.errors import ConfigError

OLDEST, NEWEST = 17, 21
"""Java versions that Kafka, HBase and Spark all run on."""

_INSTALL = "install a Java 17 runtime (Debian, Ubuntu: openjdk-17-jre-headless) and put it on PATH"


@dataclass(frozen=True)
class Java:
    """A Java runtime: its program and its main version."""

    path: Path
    version: int


@functools.cache
def find_java() -> Java:
    """Return the Java on PATH.

    Raises
    ------
    ConfigError
        If there is none, or it is too old or too new; the message says what to install.
    """
    found = shutil.which("java")
    if found is None:
        raise ConfigError(f"Java is not installed: {_INSTALL}")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    return Java(Path(found), check_version(said.stderr + said.stdout, found))


def check_version(said: str, program: str) -> int:
    """Return the main version from what `java -version` said.

    Parameters
    ----------
    said : str
        The program's output, such as `openjdk version "17.0.15" 2025-04-15`.
    program : str
        Its path, for the message.

    Raises
    ------
    ConfigError
        If it is no Java, or not one of the versions that work here.
    """
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    if match is None:
        raise ConfigError(f"{program} does not run as Java: {_INSTALL}", path=program)
    version = int(match.group(1))
    if not OLDEST <= version <= NEWEST:
        raise ConfigError(
            f"{program} is Java {version}; {OLDEST} to {NEWEST} is needed: {_INSTALL}",
            path=program,
            version=version,
        )
    return version
