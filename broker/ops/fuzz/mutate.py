"""Ways to spoil a packet."""

import functools
import gzip
import io
from collections.abc import Callable, Sequence

import numpy as np

from broker.alerts.wire import varint

Mutation = Callable[[np.random.Generator, bytes, Sequence[bytes]], bytes]

_BIG = (2**31 - 1, 2**31, 2**40, 2**62, -(2**40), -1)
_BOMB_BYTES = 80 << 20
_LARGEST_FILL = 1 << 20


def _flip(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Turn over one to sixteen bits."""
    found = bytearray(packet)
    for at in rng.integers(0, len(found), rng.integers(1, 17)):
        found[at] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _flip_head(rng: np.random.Generator, packet: bytes, others: Sequence[bytes]) -> bytes:
    """Turn over bits where framing, lengths and scalars are."""
    cut = min(len(packet), 400)
    tail = min(len(packet), 26_000)  # behind the schema of a container
    return _flip(rng, packet[:cut], others) + packet[cut:tail] + packet[tail:]


def _cut(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """End early."""
    return packet[: int(rng.integers(0, len(packet)))]


def _grow(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Put bytes in somewhere."""
    at = int(rng.integers(0, len(packet) + 1))
    return packet[:at] + rng.bytes(int(rng.integers(1, 200))) + packet[at:]


def _drop(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Leave bytes out somewhere."""
    at = int(rng.integers(0, len(packet)))
    return packet[:at] + packet[at + int(rng.integers(1, 200)) :]


def _long(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Claim a length that cannot be, somewhere."""
    at = int(rng.integers(0, len(packet)))
    return packet[:at] + varint(int(rng.choice(np.array(_BIG)))) + packet[at:]


def _nest(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Open lists and unions, thousands deep."""
    at = int(rng.integers(0, len(packet)))
    return packet[:at] + b"\x02" * int(rng.integers(1000, 20_000)) + packet[at:]


def _fill(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Write one byte over a part: 0, 255, or that of a NaN."""
    at, n = int(rng.integers(0, len(packet))), int(rng.integers(4, 64))
    word = rng.choice(np.array([b"\x00", b"\xff", b"\x7f", b"\xc0"]))
    return (packet[:at] + bytes(word) * n + packet[at + n :])[: len(packet)]


def _nan(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Write numbers that are none, or too large, over a few places."""
    found = bytearray(packet)
    words = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324])
    for at in rng.integers(0, max(1, len(found) - 8), 6):
        kind = "<f8" if rng.random() < 0.5 else "<f4"
        with np.errstate(over="ignore"):
            word = np.array(rng.choice(words)).astype(kind).tobytes()
        found[at : at + len(word)] = word
    return bytes(found)


def _splice(rng: np.random.Generator, packet: bytes, others: Sequence[bytes]) -> bytes:
    """Go on as another packet, perhaps of another survey: a swapped schema."""
    other = others[int(rng.integers(len(others)))]
    at = int(rng.integers(0, min(len(packet), len(other))))
    return packet[:at] + other[at:]


def _swap(rng: np.random.Generator, packet: bytes, others: Sequence[bytes]) -> bytes:
    """Take the framing of another packet for this one's body."""
    other = others[int(rng.integers(len(others)))]
    return other[:5] + packet[5:]


def _large(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Go on for up to a megabyte."""
    return packet + b"\x00" * int(rng.integers(1, _LARGEST_FILL))


def _bombed(rng: np.random.Generator, packet: bytes, _: Sequence[bytes]) -> bytes:
    """Put a compressed nothing, of 80 MB, where a compressed cutout begins."""
    at = packet.find(b"\x1f\x8b\x08", int(rng.integers(0, len(packet) // 2)))
    if at < 0:
        at = int(rng.integers(0, len(packet)))
    boom = bomb()
    return packet[:at] + boom + packet[at + len(boom) :]


@functools.cache
def bomb(size: int = _BOMB_BYTES) -> bytes:
    """Return a gzip file that unpacks to so many zeros."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return out.getvalue()


MUTATIONS: dict[str, Mutation] = {
    "flip": _flip,
    "flip-head": _flip_head,
    "cut": _cut,
    "grow": _grow,
    "drop": _drop,
    "long": _long,
    "nest": _nest,
    "fill": _fill,
    "nan": _nan,
    "splice": _splice,
    "swap": _swap,
    "large": _large,
    "bomb": _bombed,
}
"""By name."""


def mutate(
    rng: np.random.Generator, packets: Sequence[bytes], others: Sequence[bytes]
) -> tuple[str, bytes]:
    """Return a mutation's name, and one of some packets, spoilt by it; sometimes twice.

    Parameters
    ----------
    rng : Generator
        Chooses all.
    packets : sequence of bytes
        Good ones of one survey.
    others : sequence of bytes
        Of any survey, to mix with.
    """
    packet = packets[int(rng.integers(len(packets)))]
    names = list(MUTATIONS)
    name = names[int(rng.integers(len(names)))]
    packet = MUTATIONS[name](rng, packet, others)
    if packet and rng.random() < 0.1:
        again = names[int(rng.integers(len(names)))]
        return f"{name}+{again}", MUTATIONS[again](rng, packet, others)
    return name, packet
