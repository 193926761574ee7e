"""Where randomness comes from: a stream of its own for everything that is drawn."""

import zlib

import numpy as np


def generator(seed: int, kind: str, *key: int) -> np.random.Generator:
    """Return the generator of one thing, the same whatever else is drawn, and in what order.

    Parameters
    ----------
    seed : int
        Of the whole survey.
    kind : str
        What is drawn: each kind has its own streams.
    *key : int
        Which one of that kind: a patch of the sky, a visit and a detector.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, kind, key)))


def noise_key(seed: int, kind: str, *key: int) -> np.uint64:
    """Return a key for noise that is counted by pixel: well mixed, so no two are alike."""
    return np.uint64(_sequence(seed, kind, key).generate_state(1, np.uint64)[0])


def _sequence(seed: int, kind: str, key: tuple[int, ...]) -> np.random.SeedSequence:
    # As words of one list, a seed above 2^32 and a key that ends in zeros would not be distinct.
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(kind.encode()), len(key), *key))
