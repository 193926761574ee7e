"""A row or more of every table."""

import every_table as _every_table
import pytest


@pytest.fixture
def every_table():
    """Writes every table of a run, `fill`, and reads it back, `read`."""
    return _every_table
