"""Huffman codes as Deflate has them: from how often each symbol occurs (RFC 1951, 3.2.2)."""

from typing import Any

import numpy as np

from broker.imaging.kernels import compiled

LONGEST_CODE = 15
LENGTH_MARK = 32
"""A code is kept as its bits, with their number above them."""


@compiled
def _reversed(code: int, length: int) -> Any:
    code = ((code & 0x5555) << 1) | ((code >> 1) & 0x5555)
    code = ((code & 0x3333) << 2) | ((code >> 2) & 0x3333)
    code = ((code & 0x0F0F) << 4) | ((code >> 4) & 0x0F0F)
    code = ((code & 0x00FF) << 8) | ((code >> 8) & 0x00FF)
    return code >> (16 - length)


@compiled
def make_codes(lengths: Any, n: int, codes: Any) -> None:
    """Give symbols the codes that their lengths imply (RFC 1951, 3.2.2)."""
    count, code = np.zeros(LONGEST_CODE + 2, np.int64), np.zeros(LONGEST_CODE + 2, np.int64)
    for i in range(n):
        count[lengths[i]] += 1
    count[0] = 0
    for length in range(1, LONGEST_CODE + 1):
        code[length] = (code[length - 1] + count[length - 1]) << 1
    for i in range(n):
        length = lengths[i]
        codes[i] = _reversed(code[length], length) | (length << LENGTH_MARK)
        code[length] += 1


@compiled
def _by_count(counts: Any, n: int) -> Any:
    """Return the symbols that occur, rarest first, and how often each."""
    symbols, other = np.empty(n, np.int64), np.empty(n, np.int64)
    used, most = 0, 0
    for i in range(n):
        if counts[i] > 0:
            symbols[used] = i
            used += 1
            most = max(most, counts[i])
    shift = 0
    while most >> shift > 0xFFFF:
        shift += 1
    weights = np.empty(n, np.int64)
    for i in range(used):
        weights[symbols[i]] = max(counts[symbols[i]] >> shift, 1)
    for digit in (0, 8):
        start = np.zeros(257, np.int64)
        for i in range(used):
            start[((weights[symbols[i]] >> digit) & 0xFF) + 1] += 1
        for i in range(256):
            start[i + 1] += start[i]
        for i in range(used):
            key = (weights[symbols[i]] >> digit) & 0xFF
            other[start[key]] = symbols[i]
            start[key] += 1
        symbols, other = other, symbols
    sorted_weights = np.empty(used, np.int64)
    for i in range(used):
        sorted_weights[i] = weights[symbols[i]]
    return symbols[:used], sorted_weights


@compiled
def _depths(weights: Any) -> None:
    """Turn weights, rising, into the depths of their leaves (Moffat & Katajainen 1995, WADS)."""
    n = weights.size
    weights[0] += weights[1]
    root, leaf = 0, 2
    for k in range(1, n - 1):
        if leaf >= n or weights[root] < weights[leaf]:
            weights[k] = weights[root]
            weights[root] = k
            root += 1
        else:
            weights[k] = weights[leaf]
            leaf += 1
        if leaf >= n or (root < k and weights[root] < weights[leaf]):
            weights[k] += weights[root]
            weights[root] = k
            root += 1
        else:
            weights[k] += weights[leaf]
            leaf += 1
    weights[n - 2] = 0
    for k in range(n - 3, -1, -1):
        weights[k] = weights[weights[k]] + 1
    free, used, depth, root, k = 1, 0, 0, n - 2, n - 1
    while free > 0:
        while root >= 0 and weights[root] == depth:
            used += 1
            root -= 1
        while free > used:
            weights[k] = depth
            k -= 1
            free -= 1
        free, used, depth = 2 * used, 0, depth + 1


@compiled
def code_lengths(counts: Any, n: int, limit: int, lengths: Any) -> None:
    """Give symbols, at least two of which occur, the lengths of their codes."""
    symbols, depths = _by_count(counts, n)
    _depths(depths)
    number = np.zeros(limit + 1, np.int64)
    for i in range(depths.size):
        number[min(depths[i], limit)] += 1
    room = 0
    for length in range(1, limit + 1):
        room += number[length] << (limit - length)
    while room > 1 << limit:  # codes that were cut take more than there is: lengthen others
        number[limit] -= 1
        length = limit - 1
        while number[length] == 0:
            length -= 1
        number[length] -= 1
        number[length + 1] += 2
        room -= 1
    at = 0
    for length in range(limit, 0, -1):
        for _ in range(number[length]):
            lengths[symbols[at]] = length
            at += 1
