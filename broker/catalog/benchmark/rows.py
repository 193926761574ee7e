"""A line of the table that `broker bench catalog` prints."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measurement.

    Parameters
    ----------
    what : str
    measured : float
    required : str
        Threshold, as `>= 200`; empty where there is none.
    reference : str
        What another program reaches on the same data in the same run, or what else to know.
    is_met : bool or None
        None where there is no threshold.
    """

    what: str
    measured: float
    required: str = ""
    reference: str = ""
    is_met: bool | None = None


def at_least(what: str, measured: float, least: float, reference: str = "") -> Row:
    """Return the row of a number that must not be below a threshold."""
    return Row(what, measured, f">= {least:g}", reference, bool(measured >= least))


def at_most(what: str, measured: float, most: float, reference: str = "") -> Row:
    """Return the row of a number that must not be above a threshold."""
    return Row(what, measured, f"<= {most:g}", reference, bool(measured <= most))
