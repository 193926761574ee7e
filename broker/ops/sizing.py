"""How many cores and how much disk a survey takes, from what one alert was measured to take.

Processor time adds up: an alert that costs so many core-milliseconds costs them on any number of
machines, as long as nothing is shared that is full. So cores are rate times cost, with room to
catch up after an outage. What is shared (network, disks) is not in it, and one alert's latency
does not follow from it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.errors import ConfigError

NIGHT_ALERTS = 10_000_000
"""Alerts of a night of Rubin (Ivezić et al. 2019, ApJ 873, 111, section 3.3)."""

NIGHT_S = 10.0 * 3600.0
"""Length of the night that they come in. [s]"""

SPARE = 2.0
"""Cores for each one that the mean rate keeps busy: an outage is made up for in its own length."""

KEPT_NIGHTS = 7
"""Nights that Kafka keeps the packets; the archive keeps all."""

COPIES = 3


@dataclass(frozen=True)
class Need:
    """What one part needs at a multiple of Rubin's rate.

    Parameters
    ----------
    part : str
        Of the stack, or what is stored.
    per_alert : float
        Measured, of one alert, in `unit`.
    unit : str
        `core-ms` or `kB`.
    amounts : tuple of float
        What is needed at each multiple: cores, or terabytes.
    """

    part: str
    per_alert: float
    unit: str
    amounts: tuple[float, ...]


def needs(bench: Mapping[str, Any], multiples: Sequence[float]) -> list[Need]:
    """Return what each part needs, and the sums.

    Parameters
    ----------
    bench : mapping
        What `broker bench stream --json` says under `bench`.
    multiples : sequence of float
        Of Rubin's rate.

    Raises
    ------
    ConfigError
        If it is no such document.
    """
    try:
        rounds = [dict(one["core_ms"]) for one in bench["full"]]
        kilobytes = float(bench["kilobytes"])
        cost = {
            part: statistics.median([one.get(part, 0.0) for one in rounds]) for part in rounds[-1]
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError("this is no result of broker bench stream --json") from error
    per_s = NIGHT_ALERTS / NIGHT_S
    found = [
        Need(part, ms, "core-ms", tuple(m * per_s * ms / 1e3 * SPARE for m in multiples))
        for part, ms in cost.items()
    ]
    total = sum(cost.values())
    found.append(
        Need("cores in all", total, "core-ms", _sums(found, len(multiples))),
    )
    night_tb = NIGHT_ALERTS * kilobytes / 1e9
    stored = {
        "archive, a night [TB]": 1,
        "Kafka's input, kept nights and copies [TB]": KEPT_NIGHTS * COPIES,
    }
    return found + [
        Need(what, kilobytes, "kB", tuple(m * night_tb * times for m in multiples))
        for what, times in stored.items()
    ]


def _sums(found: Sequence[Need], n: int) -> tuple[float, ...]:
    return tuple(sum(one.amounts[i] for one in found) for i in range(n))
