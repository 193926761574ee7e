"""Packets of the simulation for tests of the stream: alerts along a line, each a good one."""

from broker.alerts.packet import encode_sim


def sim_packet(number, *, is_moving=False, **changes):
    """Return the packet of one alert.

    Parameters
    ----------
    number : int
        Its diaSourceId.
    is_moving : bool
        As of a solar-system object: every such alert passes a filter and leaves.
    **changes
        Fields of its diaSource.
    """
    source = {
        "diaSourceId": number,
        "visit": 7,
        "detector": 1,
        "diaObjectId": 500 + number,
        "midpointMjdTai": 61_000.25,
        "ra": 10.0 + 0.01 * number,
        "dec": -5.0,
        "psfFlux": 1000.0,
        "psfFluxErr": 50.0,
        "snr": 20.0,
        "band": "r",
        "reliability": 0.9,
        **changes,
    }
    alert = {"diaSourceId": number, "diaSource": source}
    if is_moving:
        alert["ssSource"] = {"ssObjectId": number, "ephOffset": 0.5}
    return encode_sim(alert)
