"""A row or more of every table."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "every_table", Path(__file__).parents[2] / "every_table.py"
)
_every_table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_every_table)


@pytest.fixture
def every_table():
    """Writes every table of a run, `fill`, and reads it back, `read`."""
    return _every_table
