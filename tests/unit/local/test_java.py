"""Which Java works here, told from what it says of itself."""

import pytest

from broker.errors import ConfigError
from broker.local.java import check_version


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
        ('java version "21" 2023-09-19 LTS', 21),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "17-ea" 2021-09-14', 17),
    ],
)
def test_a_java_that_works_is_recognised(said, version):
    assert check_version(said, "/usr/bin/java") == version


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('java version "1.8.0_392"', "Java 8"),
        ('openjdk version "11.0.21" 2023-10-17', "Java 11"),
        ('openjdk version "25" 2025-09-16', "Java 25"),
    ],
)
def test_another_java_is_refused_with_what_to_install(said, found):
    with pytest.raises(ConfigError, match=rf"{found}; 17 to 21 is needed: install .*openjdk-17"):
        check_version(said, "/usr/bin/java")


def test_a_program_that_is_no_java_is_refused():
    with pytest.raises(ConfigError, match="does not run as Java: install"):
        check_version("The operation couldn't be completed. Unable to locate a Java Runtime.", "j")
