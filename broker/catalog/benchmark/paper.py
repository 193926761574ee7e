"""What a cluster would need for a join of 1e9 x 1e9, reckoned from what was measured."""

from broker.bench_rows import Row

_ROWS, _CORES, _DISK_BYTES_PER_S = 1e9, 16, 0.5e9
_READ_BYTES, _PAIR_BYTES, _PAIRS_A_ROW = 40 + 16, 30, 0.5
_SLOWER = 3.0
"""A search anywhere among 1e9 rows beside one among 1e6; it was measured as 2.7."""


def seconds_on(nodes: int, us_a_row: float) -> float:
    """Return how long nodes of 16 cores with a disk each take for 1e9 x 1e9. [s]

    Parameters
    ----------
    nodes : int
    us_a_row : float
        Measured on one core. [us]
    """
    core_s = _ROWS * us_a_row * 1e-6 * _SLOWER
    disk_s = _ROWS * (_READ_BYTES + _PAIRS_A_ROW * _PAIR_BYTES) / _DISK_BYTES_PER_S
    return (core_s / _CORES + disk_s) / nodes


def rows_on_paper(us_a_row: float) -> list[Row]:
    """Return the rows of this reckoning, from the time of one row of a join. [us]"""
    read_gb, written_gb = _ROWS * _READ_BYTES / 1e9, _ROWS * _PAIRS_A_ROW * _PAIR_BYTES / 1e9
    how = (
        f"{us_a_row:.2f} us a row x {_SLOWER:g} on {_CORES} cores a node; {read_gb:.0f} GB read "
        f"and {written_gb:.0f} GB written at {_DISK_BYTES_PER_S / 1e9:g} GB/s a node; no shuffle"
    )
    return [
        Row(f"on paper: 1e9 x 1e9 on {nodes} nodes, s", seconds_on(nodes, us_a_row), anchor=how)
        for nodes in (1, 8, 64)
    ]
