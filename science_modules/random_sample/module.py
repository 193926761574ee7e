"""One alert in a hundred, the same ones however often and wherever it is asked."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.science import topic_filter

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def stable_hash(words: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each word, the same on every machine and in every version.

    FNV-1a over the bytes (Fowler, Noll and Vo; RFC 9923), then the finaliser of splitmix64
    (Steele, Lea & Flood 2014, OOPSLA), because FNV's high bits hardly depend on the last bytes.

    Parameters
    ----------
    words : NDArray[np.bytes_], shape (n,)
        Without zero bytes, which pad the shorter ones.
    """
    width = words.dtype.itemsize
    letters = np.frombuffer(words.tobytes(), np.uint8).reshape(len(words), width)
    state = np.full(len(words), _FNV_OFFSET, np.uint64)
    for column in letters.T:
        following = (state ^ column.astype(np.uint64)) * _FNV_PRIME
        state = np.where(column == 0, state, following)
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return np.asarray(state ^ (state >> np.uint64(31)))


@topic_filter(topic="random-sample", max_pass_fraction=0.05)
def random_sample(
    survey: pd.Series, dia_source_id: pd.Series, *, fraction: float = 0.01
) -> pd.Series:
    """For tests, statistics and newcomers: a fair 1 % of all alerts, reproducible.

    An alert is chosen by a hash of its survey and diaSourceId alone, so that a replay, another
    machine or another batch choose the same.
    """
    names = survey.str.cat(dia_source_id, sep="|")
    words = np.array([name.encode() for name in names], dtype=np.bytes_)
    if words.size == 0:
        return pd.Series([], dtype=bool)
    return pd.Series(stable_hash(words) < np.uint64(fraction * 2.0**64))
