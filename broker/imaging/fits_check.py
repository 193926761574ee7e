"""Whether a file is whole FITS, from its headers and its length alone."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

BLOCK = 2880
_CARD = 80
_EXTENSION = b"XTENSION"
_MOST_BLOCKS = 20_000
_PIECE = 1 << 20


def problem_of(path: Path) -> str | None:
    """Return what is wrong with a file in words; None if it is a whole FITS file.

    Missing blanks after the last data are no problem, as for other readers. A gzipped file is
    read to its end, so that a damaged one is found.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(2)
            file.seek(0)
            if magic == b"\x1f\x8b":
                with gzip.open(file) as inner:
                    return _problem(inner)  # type: ignore[arg-type]
            return _problem(file)
    except FileNotFoundError:
        return "there is no such file"
    except IsADirectoryError:
        return "it is a folder"
    except (OSError, EOFError, zlib.error) as error:
        return f"it cannot be read: {error}"


def why_unread(path: Path, error: BaseException) -> str:
    """Return in words why astropy could not read a file."""
    reason = " ".join(str(error).split())
    if reason.startswith(("Checksum", "Datasum")):
        # astropy itself leaves old sums when it writes a changed image without checksum=True.
        return (
            "its CHECKSUM or DATASUM does not fit: the file is damaged, or was changed by a "
            "program that left the old sums; delete these keywords if it was"
        )
    return problem_of(path) or f"it is no whole FITS file: {reason}"


def _problem(file: BinaryIO) -> str | None:
    first = file.read(BLOCK)
    if not first:
        return "it is empty"
    if not first.startswith(b"SIMPLE  ="):
        return "it is not FITS: it does not start with SIMPLE"
    number, block = 0, first
    while True:
        header = _header(file, block)
        if isinstance(header, str):
            return f"HDU {number}: {header}"
        size = _data_bytes(header)
        if size is None:
            return f"HDU {number}: its header does not say how large the data are"
        got = _skip(file, size)
        if got < size:
            return f"it is cut short: HDU {number} has {got} of {size} bytes"
        _skip(file, -size % BLOCK)
        block, number = file.read(BLOCK), number + 1
        if not block or not block.startswith(_EXTENSION[: len(block)]):
            return None  # special records after the last HDU are allowed


def _header(file: BinaryIO, block: bytes) -> dict[str, str] | str:
    """Return the keywords of a header as text, or what is wrong with it."""
    found: dict[str, str] = {}
    for _ in range(_MOST_BLOCKS):
        if len(block) < BLOCK:
            return "it is cut short in its header"
        for at in range(0, BLOCK, _CARD):
            card = block[at : at + _CARD].decode("latin-1")
            name = card[:8].rstrip()
            if name == "END":
                return found
            if card[8:9] == "=":
                found.setdefault(name, card[10:].split("/")[0].strip())
        block = file.read(BLOCK)
    return "its header has no END"


def _data_bytes(header: dict[str, str]) -> int | None:
    """Return the length of the data as the standard has it, without blanks. [bytes]"""
    try:
        axes = [int(header[f"NAXIS{k + 1}"]) for k in range(int(header["NAXIS"]))]
        bits = abs(int(header["BITPIX"]))
        groups, extra = int(header.get("GCOUNT", "1")), int(header.get("PCOUNT", "0"))
    except (KeyError, ValueError):
        return None
    if not axes:
        return 0
    if axes[0] == 0 and header.get("GROUPS") == "T":
        axes = axes[1:]
    elements = 1
    for axis in axes:
        elements *= axis
    return bits // 8 * groups * (extra + elements)


def _skip(file: BinaryIO, size: int) -> int:
    """Go past some bytes; return how many there were."""
    if size <= 0:
        return 0
    if isinstance(file, gzip.GzipFile):
        done = 0
        while done < size and (part := file.read(min(_PIECE, size - done))):
            done += len(part)
        return done
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(min(here + size, end))
    return min(size, end - here)
