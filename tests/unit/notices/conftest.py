"""Notices as JSON and XML, and maps as FITS."""

import base64
import io
import json

import numpy as np
import pytest

GCN = {
    "mission": "Fermi",
    "instrument": "GBM",
    "id": ["bn261120"],
    "event_name": "GRB 261120A",
    "alert_type": "initial",
    "alert_datetime": "2026-11-20T03:05:00Z",
    "trigger_time": "2026-11-20T03:04:05.25Z",
    "ra": 10.0,
    "dec": -5.0,
    "ra_dec_error": 2.0,
    "containment_probability": 0.9,
    "record_number": 1,
}

VOEVENT = """<?xml version="1.0" encoding="UTF-8"?>
<voe:VOEvent xmlns:voe="http://www.ivoa.net/xml/VOEvent/v2.0" version="2.0" role="observation"
    ivorn="ivo://nasa.gsfc.gcn/Fermi#GBM_1">
  <Who><AuthorIVORN>ivo://nasa.gsfc.tan/gcn</AuthorIVORN><Date>2026-11-20T03:05:00</Date></Who>
  <What>{what}</What>
  <WhereWhen><ObsDataLocation><ObservationLocation>
    <AstroCoordSystem id="UTC-FK5-GEO"/>
    <AstroCoords coord_system_id="UTC-FK5-GEO">
      <Time unit="s"><TimeInstant><ISOTime>2026-11-20T03:04:05.25</ISOTime></TimeInstant></Time>
      <Position2D unit="deg"><Name1>RA</Name1><Name2>Dec</Name2>
        <Value2><C1>10.0</C1><C2>-5.0</C2></Value2><Error2Radius>2.0</Error2Radius></Position2D>
    </AstroCoords>
  </ObservationLocation></ObsDataLocation></WhereWhen>
  {end}
</voe:VOEvent>
"""


def make_gcn(**changes):
    values = {k: v for k, v in {**GCN, **changes}.items() if v is not None}
    return json.dumps(values).encode()


def make_voevent(old="", new="", what="", end=""):
    text = VOEVENT.format(what=what, end=end)
    assert old in text
    return text.replace(old, new).encode() if old else text.encode()


def make_map(order=5, ra=30.0, dec=20.0, width=8.0, kind="NESTED", column="PROB", header=()):
    """Return a Gaussian blob as the bytes of a FITS file, and its probability by nested pixel."""
    from astropy.io import fits
    from cdshealpix.nested import healpix_to_lonlat
    from cdshealpix.ring import healpix_to_lonlat as ring_to_lonlat

    n = 12 * 4**order
    there = ring_to_lonlat if kind == "RING" else healpix_to_lonlat
    lon, lat = there(np.arange(n), 2**order if kind == "RING" else order)
    a, d = np.radians(ra), np.radians(dec)
    cosine = np.sin(d) * np.sin(lat.rad) + np.cos(d) * np.cos(lat.rad) * np.cos(lon.rad - a)
    p = np.exp(-0.5 * (np.degrees(np.arccos(np.clip(cosine, -1, 1))) / width) ** 2)
    p /= p.sum()
    columns = [fits.Column(column, "D", array=p)]
    if kind == "NUNIQ":
        columns = [
            fits.Column("UNIQ", "K", array=np.arange(n) + 4 * 4**order),
            fits.Column("PROBDENSITY", "D", array=p * n / (4 * np.pi)),
        ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header["ORDERING"], table.header["COORDSYS"] = kind, "C"
    table.header["NSIDE"] = 2**order
    for key, value in header:
        table.header[key] = value
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(sink)
    return sink.getvalue(), p


def base64_of(data):
    return base64.b64encode(data).decode()


@pytest.fixture
def gcn():
    return make_gcn


@pytest.fixture
def voevent():
    return make_voevent


@pytest.fixture
def sky_map():
    return make_map


@pytest.fixture
def encoded():
    return base64_of
