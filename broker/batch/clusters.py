"""Density clusters (DBSCAN) of catalogue entries, in blocks of rows, exact between blocks.

On the sky or in space: an entry is a row of a catalogue, or a place in `Space.row`.
Two passes over blocks: which entries are core (have enough neighbours), then the clusters of the
core entries within a block and the links out of it. Joining the links is little work, done once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.catalog.neighbours import counts_within, unordered_pairs_within
from broker.catalog.partition import Rows
from broker.catalog.space import Space

NOISE = -1

_Ints = NDArray[np.int64]
_AT_ONCE = 20_000


@dataclass(frozen=True)
class BlockClusters:
    """The clusters of one block of rows, before blocks are joined.

    Parameters
    ----------
    part : NDArray[np.int64], shape (n_rows,)
        For each row of the block one row that stands for its part of a cluster: of this block
        for a core row, of any block for a border row; `NOISE` for the rest.
    links : NDArray[np.int64], shape (n_links, 2)
        Pairs of core rows within reach of each other, the first in the block, the second not.
    """

    part: _Ints
    links: _Ints


def _pairs(
    entries: Rows | Space, first: int, end: int, radius: float
) -> tuple[_Ints, _Ints, NDArray[np.float64]]:
    """Return the pairs of entries `first` <= entry < `end` and any; in space nearest first."""
    if isinstance(entries, Space):
        return entries.pairs_within(np.asarray(entries.xyz[first:end]), radius)
    return unordered_pairs_within(entries, entries.ra[first:end], entries.dec[first:end], radius)


def _nearest_first(
    entries: Rows | Space, at: _Ints, row: _Ints, separation: NDArray[np.float64]
) -> tuple[_Ints, _Ints]:
    """Return pairs of `_pairs` nearest first, then by id."""
    if isinstance(entries, Space):
        return at, row
    order = np.lexsort((entries.rank[row], separation, at))
    return at[order], row[order]


def core_rows(
    rows: Rows | Space, first: int, end: int, *, radius: float, min_points: int
) -> NDArray[np.bool_]:
    """Return which rows of a block have at least `min_points` rows within reach, itself one.

    The radius is in arcsec on the sky, and in the unit of lengths in space.
    """
    counts = np.zeros(end - first, dtype=np.int64)
    for a in range(first, end, _AT_ONCE):
        b = min(a + _AT_ONCE, end)
        some = slice(a - first, b - first)
        if isinstance(rows, Space):
            at, _, _ = _pairs(rows, a, b, radius)
            counts[some] = np.bincount(at, minlength=b - a)
        else:
            counts[some] = counts_within(
                rows, rows.ra[a:b], rows.dec[a:b], radius, enough=min_points
            )
    return counts >= min_points


def block_clusters(
    rows: Rows | Space, first: int, end: int, core: NDArray[np.bool_], *, radius: float
) -> BlockClusters:
    """Return the clusters of a block of rows.

    Parameters
    ----------
    rows : Rows or Space
        The catalogue.
    first, end : int
        The block: first <= row < end.
    core : NDArray[np.bool_], shape (len(rows),)
        Which rows of the whole catalogue are core.
    radius : float
        Reach, in arcsec on the sky.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    border = np.full(end - first, NOISE, dtype=np.int64)
    inner, links = [np.empty((0, 2), np.int64)], [np.empty((0, 2), np.int64)]
    for a in range(first, end, _AT_ONCE):
        b = min(a + _AT_ONCE, end)
        at, row, separation = _pairs(rows, a, b, radius)
        to_core = core[row]
        at, row, separation = at[to_core] + a, row[to_core], separation[to_core]
        from_core = core[at]
        # A border row belongs to its nearest core row.
        beside = ~from_core
        edge, near = _nearest_first(rows, at[beside], row[beside], separation[beside])
        owner, place = np.unique(edge, return_index=True)
        border[owner - first] = near[place]
        pairs = np.stack([at[from_core], row[from_core]], axis=1)
        is_inner = (pairs[:, 1] >= first) & (pairs[:, 1] < end)
        inner.append(pairs[is_inner & (pairs[:, 0] < pairs[:, 1])])
        links.append(pairs[~is_inner])
    edges = np.concatenate(inner) - first
    n = end - first
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(n, n))
    label = connected_components(graph, directed=False)[1].astype(np.int64)
    lowest = np.full(label.max(initial=-1) + 1, end)
    np.minimum.at(lowest, label, np.arange(first, end))
    return BlockClusters(
        np.where(core[first:end], lowest[label], border),
        _spanning(np.concatenate(links), lowest, label, first),
    )


def _spanning(links: _Ints, lowest: _Ints, label: _Ints, first: int) -> _Ints:
    """Replace the near end of links by what stands for its part: far fewer links remain."""
    if not len(links):
        return links
    links = np.stack([lowest[label[links[:, 0] - first]], links[:, 1]], axis=1)
    return np.unique(links, axis=0)


def join_parts(part: _Ints, links: _Ints) -> _Ints:
    """Return the cluster of each row from the blocks' parts and links.

    Parameters
    ----------
    part : NDArray[np.int64], shape (n_rows,)
        `BlockClusters.part` of all blocks, in the order of rows.
    links : NDArray[np.int64], shape (n_links, 2)
        Those of all blocks.

    Returns
    -------
    NDArray[np.int64], shape (n_rows,)
        0, 1, … in the order of each cluster's first core row; `NOISE` for the rest.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = part.size
    clustered = part != NOISE
    # A border row names a core row, whose part stands for it.
    stands = np.where(clustered, part[part], NOISE)
    far = part[links[:, 1]]
    graph = coo_matrix((np.ones(len(links), bool), (links[:, 0], far)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    found = label[stands[clustered]]
    lowest = np.full(n, n)
    np.minimum.at(lowest, found, stands[clustered])
    _, number = np.unique(lowest[found], return_inverse=True)
    answer = np.full(n, NOISE, dtype=np.int64)
    answer[clustered] = number
    return answer
