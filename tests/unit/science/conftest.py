"""Modules folders written on the spot."""

import textwrap

import pytest

HEAD = """
import numpy as np
import pandas as pd
from broker.science import Column, Cutouts, LightCurves, science_module, topic_filter
"""


@pytest.fixture
def write_modules(tmp_path):
    """Return a function that writes `<name>/module.py` files and returns their folder."""

    def write(**sources):
        folder = tmp_path / "contributed"
        for name, source in sources.items():
            (folder / name).mkdir(parents=True)
            text = HEAD + textwrap.dedent(source)
            (folder / name / "module.py").write_text(text, encoding="utf-8")
        return folder

    return write


def module(name, body, *, inputs="psf_flux", dtype="float64", version="1.0.0"):
    """Return the source of a module with one output, `<name>Value`."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return f"""
@science_module(version="{version}", outputs=(Column("{name}Value", "{dtype}", "", "A value."),))
def {name}({inputs}):
    '''Return a value.'''
{lines}
"""


@pytest.fixture(name="module")
def module_source():
    """Return the function that writes a module's source."""
    return module
