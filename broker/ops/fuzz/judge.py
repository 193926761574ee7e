"""What becomes of a spoilt packet, in Python: an alert, or refused with a reason; nothing else."""

import functools
from dataclasses import dataclass

import pyarrow as pa

from broker.alerts.adapters import find_adapters
from broker.alerts.columns import CUTOUTS
from broker.alerts.packet import encode_sim
from broker.errors import AlertError
from broker.imaging.cutout import decode_cutout
from broker.imaging.message import decode_image
from broker.simulation.observatory import simulate_night
from broker.simulation.packets import simulate_packets
from broker.simulation.settings import TEST
from broker.types import Coordinate

IMAGES = "ccd-images"
SURVEYS = ("sim", "ztf", "lsst", IMAGES)

_ORIGIN = Coordinate("fuzz", 0, 0)


@dataclass(frozen=True)
class Verdict:
    """What became of a packet.

    Parameters
    ----------
    is_alert : bool
        Whether it is an alert, or an image, in spite of all.
    reason : str
        Why not, for a person.
    cutouts, refused : int
        Of an alert: cutouts that were read, and that were refused.
    """

    is_alert: bool
    reason: str = ""
    cutouts: int = 0
    refused: int = 0


def judge(survey: str, packet: bytes) -> Verdict:
    """Return what the stage that reads packets of a survey, or images, makes of one.

    What it raises beyond `AlertError` is a defect, and is not caught.
    """
    try:
        if survey == IMAGES:
            decode_image(packet)
            return Verdict(True)
        table = find_adapters()[survey].decode_one(packet, _ORIGIN)
    except AlertError as error:
        return Verdict(False, error.message)
    read, refused = cutouts_of(table)
    return Verdict(True, "", read, refused)


def cutouts_of(table: pa.Table) -> tuple[int, int]:
    """Return how many cutouts of canonical alerts can be read, and how many are refused."""
    read = refused = 0
    for name in CUTOUTS:
        for value in table.column(name).to_pylist():
            if value is None:
                continue
            try:
                decode_cutout(value)
                read += 1
            except AlertError:
                refused += 1
    return read, refused


@functools.cache
def seeds_of(survey: str) -> tuple[bytes, ...]:
    """Return good packets of a survey, or images, to be spoilt."""
    if survey == IMAGES:
        return tuple(
            bytes(one.message.value or b"")
            for one in simulate_night(seed=3, settings=TEST).exposures()
        )
    if survey != "sim":
        return tuple(simulate_packets(survey, 12, 3, history="short"))
    cutouts = [
        value
        for packet in seeds_of("ztf")[:3]
        for value in find_adapters()["ztf"].read(packet)[1]["cutoutScience"].values()
        if isinstance(value, bytes)
    ]
    return tuple(_sim(number, cutout) for number, cutout in enumerate(cutouts, 1))


def _sim(number: int, cutout: bytes) -> bytes:
    source = {
        "diaSourceId": number,
        "visit": 7,
        "detector": 1,
        "diaObjectId": 500 + number,
        "midpointMjdTai": 61_000.25,
        "ra": 10.0,
        "dec": -5.0,
        "psfFlux": 1000.0,
        "psfFluxErr": 50.0,
        "snr": 20.0,
        "band": "r",
    }
    cutouts = dict.fromkeys(CUTOUTS, cutout)
    return encode_sim({"diaSourceId": number, "diaSource": source, **cutouts})
