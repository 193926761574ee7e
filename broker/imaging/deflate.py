"""Gzip for pixels: Huffman codes of their bytes and runs of equal ones, without a search.

Noise repeats nothing, so to look for repetitions costs most of what a compressor takes and finds
next to none; what is left is how often each byte occurs (RFC 1951, block type 2). Blank borders
are runs of one pixel. A file's header is text that hardly changes: its fixed part is packed once
and kept, the rest goes by the fixed codes (block type 1). Any program that reads gzip reads it.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from broker.imaging.huffman import LENGTH_MARK, LONGEST_CODE, code_lengths, make_codes
from broker.imaging.kernels import compiled

_END = 256
_WORD = 8
"""Bytes of which several together are taken for a repetition."""

_WORD_DISTANCE = 5
"""Code of the distances 7 and 8."""

_LONGEST_RUN, _SHORTEST_RUN = 258, 3
_LONGEST_LENGTH_CODE = 7
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""Deflate, no name, no time, fastest, of no system in particular."""

_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


def _run_lengths() -> NDArray[np.int64]:
    """Return symbol, extra bits and their number by the bytes of a run, shape (259, 3)."""
    table = np.zeros((_LONGEST_RUN + 1, 3), np.int64)
    first = _SHORTEST_RUN
    for symbol in range(257, 285):
        extra = 0 if symbol < 265 else (symbol - 261) // 4
        for value in range(1 << extra):
            if first + value < _LONGEST_RUN:
                table[first + value] = symbol, value, extra
        first += 1 << extra
    table[_LONGEST_RUN] = 285, 0, 0
    return table


_RUNS = _run_lengths()


@compiled
def _put(out: Any, at: Any, held: Any, n: Any, bits: Any, count: Any) -> Any:
    """Write at most 32 bits; less than 32 are held back."""
    # Unsigned throughout: no index can be negative, and none is looked at for it.
    held, filled = np.uint64(held), np.uint64(n)
    held |= np.uint64(bits) << filled
    filled += np.uint64(count)
    out[np.uint64(at)] = held & np.uint64(0xFFFFFFFF)
    whole = filled >> np.uint64(5)
    held >>= whole << np.uint64(5)
    return np.uint64(at) + whole, held, filled & np.uint64(31)


@compiled
def _put_code(out: Any, at: int, held: int, n: int, code: int) -> Any:
    return _put(out, at, held, n, code & 0xFFFF, code >> LENGTH_MARK)


@compiled
def _put_run(out: Any, at: int, held: int, n: int, codes: Any, size: int) -> Any:
    """Write that the last pixel's bytes come again; the distance follows."""
    code = codes[_RUNS[size, 0]]
    count = code >> LENGTH_MARK
    bits = (code & 0xFFFF) | (_RUNS[size, 1] << count)
    return _put(out, at, held, n, bits, count + _RUNS[size, 2])


def _fixed_codes() -> NDArray[np.int64]:
    lengths = np.repeat([8, 9, 7, 8], [144, 112, 24, 8])
    codes = np.zeros(288, np.int64)
    make_codes.py_func(lengths, 288, codes)
    return codes


_FIXED = _fixed_codes()


@compiled
def _equal_words(words: Any, i: int) -> Any:
    """Return how many words from here are as the one before, as many as one code says."""
    most = min(_LONGEST_RUN // _WORD, words.size - i)
    run = 0
    while run < most and words[i + run] == words[i - 1]:
        run += 1
    return run


@compiled
def _count(words: Any, rest: Any, counts: Any) -> None:
    """Count bytes, and runs of words by their length's symbol."""
    tables = np.zeros(256 * _WORD, np.int32)  # one counter alone would wait for itself
    i = 0
    while i < words.size:
        word = words[i]
        if i > 0 and word == words[i - 1]:
            run = _equal_words(words, i)
            counts[_RUNS[run * _WORD, 0]] += 1
            i += run
            continue
        for k in range(_WORD):
            tables[256 * k + ((word >> (8 * k)) & 0xFF)] += 1
        i += 1
    for k in range(_WORD):
        for i in range(256):
            counts[i] += tables[256 * k + i]
    for i in range(rest.size):
        counts[rest[i]] += 1
    counts[_END] += 1


@compiled
def _said_lengths(lengths: Any, literals: int, counts: Any) -> Any:
    """Return how a block's table of code lengths is said, shape (total, 2): symbol, extra.

    Also its head, and how many are used (RFC 1951, 3.2.7). Symbols are counted.
    """
    total = lengths.size
    said = np.empty((total, 2), np.int64)
    used, i = 0, 0
    while i < total:
        run = 1
        while i + run < total and lengths[i + run] == lengths[i]:
            run += 1
        symbol, value = lengths[i], 0
        if lengths[i] == 0 and run >= 3:
            run = min(run, 138)
            symbol, value = (17, run - 3) if run < 11 else (18, run - 11)
        elif i > 0 and lengths[i] == lengths[i - 1] and run >= 3:
            run = min(run, 6)
            symbol, value = 16, run - 3
        else:
            run = 1
        said[used, 0], said[used, 1] = symbol, value
        counts[symbol] += 1
        used += 1
        i += run
    return said[:used], (literals - 257) | ((total - literals - 1) << 5)


@compiled
def _put_lengths(out: Any, at: int, held: int, n: int, table: Any) -> Any:
    """Write a block's table of code lengths."""
    said, head, own, codes = table
    last = 18
    while own[_ORDER[last]] == 0:
        last -= 1
    at, held, n = _put(out, at, held, n, head | ((last - 3) << 10), 14)
    for i in range(last + 1):
        at, held, n = _put(out, at, held, n, own[_ORDER[i]], 3)
    for i in range(said.shape[0]):
        symbol = said[i, 0]
        at, held, n = _put_code(out, at, held, n, codes[symbol])
        if symbol >= 16:
            more = 2 if symbol == 16 else (3 if symbol == 17 else 7)
            at, held, n = _put(out, at, held, n, said[i, 1], more)
    return at, held, n


@compiled
def _put_words(out: Any, at: int, held: int, n: int, words: Any, codes: Any) -> Any:
    """Write words, four bytes at a time where their codes are short enough."""
    bits_of, count_of = np.empty(286, np.uint64), np.empty(286, np.uint64)
    for i in range(286):
        bits_of[i], count_of[i] = codes[i] & 0xFFFF, codes[i] >> LENGTH_MARK
    i = 0
    while i < words.size:
        word = words[i]
        if i > 0 and word == words[i - 1]:
            run = _equal_words(words, i)
            at, held, n = _put_run(out, at, held, n, codes, run * _WORD)
            at, held, n = _put(out, at, held, n, 2, 2)
            i += run
            continue
        for k in range(0, 8 * _WORD, 32):
            a, b = (word >> k) & 0xFF, (word >> (k + 8)) & 0xFF
            c, d = (word >> (k + 16)) & 0xFF, (word >> (k + 24)) & 0xFF
            first, second = count_of[a] + count_of[b], count_of[c] + count_of[d]
            bits = bits_of[a] | (bits_of[b] << count_of[a])
            more = bits_of[c] | (bits_of[d] << count_of[c])
            if first + second <= np.uint64(32):
                bits |= more << first
                at, held, n = _put(out, at, held, n, bits, first + second)
            else:
                at, held, n = _put(out, at, held, n, bits, first)
                at, held, n = _put(out, at, held, n, more, second)
        i += 1
    return at, held, n


@compiled
def _codes_of(words: Any, rest: Any) -> Any:
    """Return the codes of words and the bytes after them, and the table that says them.

    It is compiled by itself, which together with the writing would take twice as long.
    """
    counts, codes = np.zeros(286, np.int64), np.zeros(286, np.int64)
    _count(words, rest, counts)
    literals = 286
    while counts[literals - 1] == 0:
        literals -= 1
    lengths = np.zeros(literals + _WORD_DISTANCE + 1, np.int64)
    code_lengths(counts, literals, LONGEST_CODE, lengths)
    lengths[literals + _WORD_DISTANCE] = 1
    make_codes(lengths, literals, codes)
    counts, own, its_codes = np.zeros(19, np.int64), np.zeros(19, np.int64), np.zeros(19, np.int64)
    said, head = _said_lengths(lengths, literals, counts)
    code_lengths(counts, own.size, _LONGEST_LENGTH_CODE, own)
    make_codes(own, own.size, its_codes)
    return codes, (said, head, own, its_codes)


@compiled
def _put_values(
    out: Any, at: int, held: int, n: int, words: Any, rest: Any, codes: Any, table: Any
) -> Any:
    """Write words and the bytes after them as a block with codes of its own."""
    at, held, n = _put(out, at, held, n, 4, 3)
    at, held, n = _put_lengths(out, at, held, n, table)
    at, held, n = _put_words(out, at, held, n, words, codes)
    for i in range(rest.size):
        at, held, n = _put_code(out, at, held, n, codes[rest[i]])
    return _put_code(out, at, held, n, codes[_END])


@compiled
def _put_text(out: Any, at: int, held: int, n: int, text: Any, is_last: int) -> Any:
    """Write bytes by the fixed codes."""
    at, held, n = _put(out, at, held, n, is_last | 2, 3)
    i = 0
    while i < len(text):
        run = 0
        while i > 0 and i + run < len(text) and run < _LONGEST_RUN and text[i + run] == text[i - 1]:
            run += 1
        if run > _SHORTEST_RUN:
            at, held, n = _put_run(out, at, held, n, _FIXED, run)
            at, held, n = _put(out, at, held, n, 0, 5)
            i += run
        else:
            at, held, n = _put_code(out, at, held, n, _FIXED[text[i]])
            i += 1
    return _put_code(out, at, held, n, _FIXED[_END])


@compiled
def _pack(text: Any, words: Any, rest: Any, codes: Any, table: Any, padding: Any, out: Any) -> Any:
    """Write the blocks of text, pixels' bytes and padding; return the number of bytes."""
    nothing = np.uint64(0)  # signed and unsigned numbers together would become floats
    at, held, n = _put_text(out, nothing, nothing, nothing, text, 0)
    at, held, n = _put_values(out, at, held, n, words, rest, codes, table)
    at, held, n = _put_text(out, at, held, n, padding, 1)
    out[at] = held
    return 4 * np.int64(at) + (np.int64(n) + 7) // 8


@dataclass(frozen=True)
class Beginning:
    """The packed beginning of many files."""

    packed: bytes
    crc: int
    size: int


def begin(text: bytes) -> Beginning:
    """Pack what many files have in common at their beginning."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = engine.compress(text) + engine.flush(zlib.Z_SYNC_FLUSH)
    return Beginning(_GZIP_HEAD + packed, zlib.crc32(text), len(text))


def finish(beginning: Beginning, text: bytes, pixels: NDArray[Any], padding: bytes) -> bytes:
    """Return a gzip file of a beginning, more text, pixels and padding.

    Parameters
    ----------
    beginning : Beginning
        From `begin`.
    text : bytes
        Short text that differs from file to file.
    pixels : ndarray
        Any numbers, one after the other as they lie in memory.
    padding : bytes
        What follows them.
    """
    # No code is longer than 15 bits; text and padding have 9 at most, a table of codes 500 bytes.
    room = 2 * (pixels.nbytes + len(text) + len(padding)) + 1024
    out = np.empty(room // 4, np.uint32)
    own = pixels.reshape(-1).view(np.uint8)
    whole = own.size // _WORD * _WORD
    words, rest = own[:whole].view(np.int64), own[whole:]
    codes, table = _codes_of(words, rest)
    n_bytes = _pack(text, words, rest, codes, table, padding, out)
    crc = isal_zlib.crc32(padding, isal_zlib.crc32(own, isal_zlib.crc32(text, beginning.crc)))
    size = beginning.size + len(text) + own.size + len(padding)
    tail = struct.pack("<II", crc, size & 0xFFFFFFFF)
    return b"".join((beginning.packed, out.view(np.uint8)[:n_bytes].data, tail))
