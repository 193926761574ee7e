"""A line of the tables that benchmarks print."""

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
    anchor : str
        What another program, measured here or known, reaches, or what else to know.
    is_met : bool or None
        None where there is no threshold.
    """

    what: str
    measured: float
    required: str = ""
    anchor: str = ""
    is_met: bool | None = None


def at_least(what: str, measured: float, least: float, anchor: str = "") -> Row:
    """Return the row of a number that must not be below a threshold."""
    return Row(what, measured, f">= {least:g}", anchor, bool(measured >= least))


def at_most(what: str, measured: float, most: float, anchor: str = "") -> Row:
    """Return the row of a number that must not be above a threshold."""
    return Row(what, measured, f"<= {most:g}", anchor, bool(measured <= most))
