"""What the broker is made of: every installed package it needs and every pinned jar, with licences.

Read from what is installed, without a network: names, versions and licences of the packages' own
metadata, and the jars' list with their SHA-256 and licences, which `licences_of_jar` compares with
what the jars say of themselves.
"""

import importlib.metadata as metadata
import re
import tomllib
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from email.message import Message
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from broker import __version__
from broker.errors import ConfigError

ROOT = "nightjar-broker"

ALLOWED = frozenset(
    (
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CDDL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "LGPL-2.1-or-later",
        "LGPL-3.0-or-later",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    )
)
"""Licences, as SPDX names, under which a package may be used beside ours."""

_WORDS = (
    (r"lesser general public license v2 or later|\blgplv2\+", "LGPL-2.1-or-later"),
    (r"lesser general public license v3|\blgplv3", "LGPL-3.0-or-later"),
    (r"affero|\bagpl", "AGPL-3.0"),
    (r"general public license|(?<!l)\bgpl", "GPL-3.0"),
    (r"mozilla public license 2\.0|\bmpl[- ]2", "MPL-2.0"),
    (r"apache", "Apache-2.0"),
    (r"python software foundation|\bpsf", "PSF-2.0"),
    (r"bsd[- ]2|2-clause", "BSD-2-Clause"),
    (r"\bbsd\b|bsd[- ]3|3-clause", "BSD-3-Clause"),
    (r"\bmit\b", "MIT"),
    (r"\bisc\b", "ISC"),
    (r"unlicense", "Unlicense"),
)
"""How packages call licences in words, and their SPDX names; the first that fits."""

_JAR_WORDS = (
    (r"cddl|common development and distribution", "CDDL-1.0"),
    (r"cc0|publicdomain/zero|public domain", "CC0-1.0"),
    (r"apache", "Apache-2.0"),
    (r"bsd[- ]2|2-clause|simplified bsd|^the bsd license$", "BSD-2-Clause"),
    (r"new bsd|bsd-license\.php|bsd[- ]3|go license", "BSD-3-Clause"),
    (r"\bmit\b", "MIT"),
    (r"eclipse public|\bepl", "EPL"),
    (r"lesser general|\blgpl", "LGPL"),
    (r"general public|\bgpl", "GPL"),
)
"""How jars call licences, and their SPDX names; the first that fits."""

_BUNDLE = re.compile(r"^Bundle-License: *(.*)$", re.MULTILINE)
_LICENCES = re.compile(r"<licenses>(.*?)</licenses>", re.DOTALL)
_FILE = re.compile(r"(?:META-INF/)?(?:LICENSE|LICENCE|COPYING)[^/]*", re.IGNORECASE)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class Component:
    """A package or a jar.

    Parameters
    ----------
    kind : str
        `pypi` or `maven`.
    name, version : str
        Which; of a jar group/artifact.
    licence : str
        An expression of SPDX names; empty where it is not known.
    sha256 : str
        Of the file, where one is pinned.
    """

    kind: str
    name: str
    version: str
    licence: str = ""
    sha256: str = ""

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:{self.kind}/{self.name}@{self.version}"

    @property
    def is_allowed(self) -> bool:
        """Whether it may be used."""
        return is_allowed(self.licence)


def components() -> list[Component]:
    """Return all that is installed of what the broker needs, with every extra, and its jars."""
    return [*_packages(), *_jars()]


def is_allowed(licence: str) -> bool:
    """Return whether an expression of SPDX names can be met by licences that are allowed."""
    bare = re.sub(r"\s+WITH\s+[\w.-]+", "", licence.replace("(", " ").replace(")", " "))
    return bool(licence) and all(
        any(name.strip() in ALLOWED for name in part.split(" OR ")) for part in bare.split(" AND ")
    )


def licence_of(said: Message) -> str:
    """Return the licence that a package names, in SPDX names; empty if it names none we know."""
    expression = said.get("License-Expression")
    if expression:
        return str(expression)
    classes = [c for c in said.get_all("Classifier") or [] if c.startswith("License ::")]
    found = {_spdx(text) for text in classes} - {""}
    if not found:
        text = (said.get("License") or "").strip()
        if is_allowed(text):
            return text
        found = {_spdx(text[:200])} - {""}
    return " OR ".join(sorted(found))


def licences_of_jar(path: Path, artifact: str) -> set[str]:
    """Return the licences that a jar says it has, as SPDX names; empty if it says none.

    Looked for in its manifest, in its own entry for Maven (POM), and in the first words of its
    file LICENSE.
    """
    said: list[str] = []
    with zipfile.ZipFile(path) as jar:
        for name in jar.namelist():
            if name == "META-INF/MANIFEST.MF":
                said += _BUNDLE.findall(re.sub(r"\r?\n ", "", _text(jar, name)))
            elif name.endswith(f"/{artifact}/pom.xml"):
                for block in _LICENCES.findall(_text(jar, name)):
                    said += re.findall(r"<name>(.*?)</name>", block)
            elif _FILE.fullmatch(name):
                said.append(" ".join(_text(jar, name).split())[:150])
    return {_spdx_of_jar(text) for text in said} - {""}


def _text(jar: zipfile.ZipFile, name: str) -> str:
    return jar.read(name).decode("utf-8", "replace")


def _spdx_of_jar(text: str) -> str:
    words = text.lower().replace("licenses/mit-", "licenses mit ")
    return next((name for pattern, name in _JAR_WORDS if re.search(pattern, words)), "")


def cyclonedx(found: Collection[Component]) -> dict[str, Any]:
    """Return components as a bill of materials in CycloneDX 1.6."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "name": ROOT, "version": __version__},
        },
        "components": [_entry(one) for one in found],
    }


def _entry(one: Component) -> dict[str, Any]:
    group, _, name = one.name.rpartition("/")
    entry: dict[str, Any] = {"type": "library", "name": name, "version": one.version}
    entry |= {"group": group} if group else {}
    entry |= {"purl": one.purl, "bom-ref": one.purl}
    if one.licence:
        entry["licenses"] = [{"expression": one.licence}]
    if one.sha256:
        entry["hashes"] = [{"alg": "SHA-256", "content": one.sha256}]
    return entry


def _spdx(text: str) -> str:
    words = text.lower()
    return next((name for pattern, name in _WORDS if re.search(pattern, words)), "")


def _packages() -> Iterator[Component]:
    """Yield what the project needs, and what that needs, as far as it is installed."""
    try:
        extras = metadata.metadata(ROOT).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError as error:
        raise ConfigError(f"{ROOT} is not installed: there is no metadata to read") from error
    seen: set[tuple[str, str]] = set()
    waiting = [(ROOT, extra) for extra in ("", *extras)]
    found: dict[str, Component] = {}
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # not for this system or Python
        if name != ROOT:
            found[name] = Component(
                "pypi", name, package.version, licence_of(cast(Message, package.metadata))
            )
        waiting += _needs(package.requires or [], extra)
    yield from (found[name] for name in sorted(found))


def _needs(requires: Collection[str], extra: str) -> Iterator[tuple[str, str]]:
    for text in requires:
        requirement, _, marker = text.partition(";")
        chosen = _EXTRA.findall(marker)
        match = _REQUIREMENT.match(requirement)
        if match is None or (chosen and extra not in chosen):
            continue
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        yield name, ""
        yield from ((name, part.strip()) for part in (match[2] or "").split(",") if part.strip())


def _jars() -> Iterator[Component]:
    text = files("broker.local").joinpath("jars.toml").read_text(encoding="utf-8")
    for jar in tomllib.loads(text)["jar"]:
        name = f"{jar['group']}/{jar['artifact']}"
        yield Component("maven", name, jar["version"], jar["licence"], jar["sha256"])
