"""Every package that is installed for the broker may be used, and the bill of materials has all."""

import email.message
import importlib.metadata
import re

import pytest

from broker.config import load_config
from broker.local.jars import pinned
from broker.ops.sbom import (
    Component,
    components,
    cyclonedx,
    is_allowed,
    licence_of,
    licences_of_jar,
)


def said(**headers):
    message = email.message.Message()
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            message[name.replace("_", "-")] = value
    return message


def test_every_package_and_jar_has_a_licence_that_is_allowed():
    refused = [(c.name, c.licence) for c in components() if not c.is_allowed]
    assert not refused


def test_the_bill_has_every_package_that_is_asked_for_and_all_jars():
    found = components()
    names = {c.name for c in found if c.kind == "pypi"}
    asked = importlib.metadata.requires("nightjar-broker")
    direct = {re.split(r"[\[<>=!; ]", text)[0].lower().replace("_", "-") for text in asked}
    assert direct - {"nightjar-broker"} <= names
    assert {"numpy", "py4j", "starlette", "ply"} <= names  # what others need
    bill = cyclonedx(found)
    assert len({one["bom-ref"] for one in bill["components"]}) == len(bill["components"])
    jars = [one for one in bill["components"] if one["purl"].startswith("pkg:maven/")]
    assert len(jars) > 60
    assert all(re.fullmatch("[0-9a-f]{64}", one["hashes"][0]["content"]) for one in jars)
    assert all(one["group"] for one in jars)
    for one in bill["components"]:
        assert one["version"]
        assert one["purl"] in ("pkg:maven/" + f"{one.get('group')}/{one['name']}@{one['version']}",
                               f"pkg:pypi/{one['name']}@{one['version']}")  # fmt: skip


def test_jars_say_of_their_licences_what_the_list_says():
    folder, silent, compared = load_config().cache / "jars", [], 0
    for jar in pinned():
        path = folder / jar.file_name
        if not path.exists():  # of a set that this machine never used
            continue
        said = licences_of_jar(path, jar.artifact)
        compared += bool(said)
        if not said:
            silent.append(jar.artifact)
        # A file LICENSE may be of a part; what is known of the jar itself must be among them.
        listed = set(re.findall(r"[\w.-]+\d[\w.-]*|MIT", jar.licence))
        assert not said or said & listed, (jar.artifact, said, jar.licence)
        assert not said & {"GPL", "EPL", "LGPL"}, (jar.artifact, said)
    assert len(silent) <= 15, silent
    assert compared > 50 or not list(folder.glob("*.jar"))


def test_the_bill_names_the_licence_of_every_jar():
    jars = [one for one in components() if one.kind == "maven"]
    assert len(jars) == len(pinned())
    assert {one.licence for one in jars} > {"Apache-2.0", "MIT"}
    assert not Component("maven", "g/a", "1").is_allowed
    assert not Component("maven", "g/a", "1", "GPL-2.0-only").is_allowed


@pytest.mark.parametrize(
    ("headers", "licence", "allowed"),
    [
        ({"License_Expression": "BSD-3-Clause AND MIT"}, "BSD-3-Clause AND MIT", True),
        ({"License_Expression": "Apache-2.0 WITH LLVM-exception"}, None, True),
        ({"License_Expression": "GPL-3.0-only OR MIT"}, None, True),
        ({"License_Expression": "GPL-3.0-only AND MIT"}, None, False),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT", True),
        ({"Classifier": "License :: OSI Approved :: GNU Affero General Public License v3"},
         "AGPL-3.0", False),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"},
         "GPL-3.0", False),
        ({"License": "3-Clause BSD License"}, "BSD-3-Clause", True),
        ({"License": "LGPLv3+"}, "LGPL-3.0-or-later", True),
        ({"License": "All rights reserved"}, "", False),
        ({}, "", False),
    ],
)  # fmt: skip
def test_what_a_package_says_is_understood(headers, licence, allowed):
    found = licence_of(said(**headers))
    assert licence is None or found == licence
    assert Component("pypi", "x", "1", found).is_allowed == is_allowed(found) == allowed
