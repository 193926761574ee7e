"""The fields of ZTF's records: which ones vary, and ordinary values for the others."""

from typing import Any

from broker.simulation.packets.common import DOUBLE, FLOAT, Kind, Long, Text

PID, CANDID, SMALL = Long(7), Long(9), Long(1)

DOUBLES = ("jd", "ra", "dec", "ranr", "decnr", "jdstarthist", "jdendhist", "scorr")
FLOATS = (
    *("magpsf", "sigmapsf", "magap", "sigmagap", "magapbig", "sigmagapbig"),
    *("diffmaglim", "magzpsci", "rb", "drb", "fwhm", "elong", "xpos", "ypos", "distnr"),
    *("magnr", "sigmagnr", "ssdistnr"),
)

CANDIDATE: dict[str, Kind] = {
    **dict.fromkeys(DOUBLES, DOUBLE),
    **dict.fromkeys(FLOATS, FLOAT),
    "pid": PID,
    "candid": CANDID,
    "fid": SMALL,
    "rcid": SMALL,
    "ndethist": SMALL,
    "isdiffpos": Text(1),
}

UNKNOWN = -999.0

CONSTANT: dict[str, Any] = {
    "pdiffimfilename": "ztf_00000000000000_000000_zg_c00_o_q0_scimrefdiffimg.fits",
    "programpi": "Kulkarni",
    "programid": 1,
    "nid": 2475,
    "field": 505,
    "chipsf": 3.4,
    "chinr": 0.98,
    "sharpnr": -0.05,
    "sky": 0.5,
    "magdiff": 0.1,
    "classtar": 0.98,
    "mindtoedge": 1000.0,
    "magfromlim": 1.0,
    "seeratio": 1.2,
    "aimage": 1.0,
    "bimage": 1.0,
    "aimagerat": 0.4,
    "bimagerat": 0.4,
    "nneg": 0,
    "nbad": 0,
    "tblid": 9,
    "sumrat": 1.0,
    "rbversion": "t17_f5_c3",
    "magzpsciunc": 6e-05,
    "magzpscirms": 0.04,
    "clrcoeff": -0.06,
    "clrcounc": 8e-05,
}

CANDIDATE_ONLY = {
    **{f"{band}mag{k}": 18.0 for band in ("sg", "sr", "si", "sz") for k in (1, 2, 3)},
    **{f"{name}{k}": 0.5 for name in ("sgscore", "distpsnr") for k in (1, 2, 3)},
    **{f"objectidps{k}": 119_240_469_974_422_171 for k in (1, 2, 3)},
    "ssmagnr": UNKNOWN,
    "ncovhist": 1448,
    "tooflag": 0,
    "nmtchps": 7,
    "rfid": 505_120_100,
    "jdstartref": 2_458_313.966389,
    "jdendref": 2_458_374.935625,
    "nframesref": 15,
    "dsnrms": 19.2,
    "ssnrms": 61.3,
    "dsdiff": -42.1,
    "nmatches": 372,
    "zpclrcov": -6.5e-05,
    "zpmed": 26.2,
    "clrmed": 0.75,
    "clrrms": 0.26,
    "neargaia": 0.6,
    "neargaiabright": UNKNOWN,
    "maggaia": 17.9,
    "maggaiabright": UNKNOWN,
    "exptime": 30.0,
    "drbversion": "d6_m7",
}

LIMIT: dict[str, Kind] = {
    "jd": DOUBLE,
    "diffmaglim": FLOAT,
    "magzpsci": FLOAT,
    "pid": PID,
    "fid": SMALL,
}

LIMIT_CONSTANT = {
    name: CONSTANT[name]
    for name in (
        *("pdiffimfilename", "programpi", "programid", "nid", "field", "rbversion"),
        *("magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc"),
    )
}

FORCED: dict[str, Kind] = {
    "jd": DOUBLE,
    "fid": SMALL,
    "pid": PID,
    "diffmaglim": FLOAT,
    "magzpsci": FLOAT,
    "forcediffimflux": FLOAT,
    "forcediffimfluxunc": FLOAT,
}

FORCED_CONSTANT = {
    **dict.fromkeys(("sciinpseeing", "scibckgnd", "scisigpix", "distnr", "chinr"), 1.0),
    **{name: CONSTANT[name] for name in ("magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc")},
    "field": 506,
    "rcid": 13,
    "rfid": 506_120_213,
    "programid": 1,
    "exptime": 30.0,
    "adpctdif1": 0.08,
    "adpctdif2": 0.09,
    "ranr": 46.99,
    "decnr": 9.37,
    "magnr": 14.6,
    "sigmagnr": 0.015,
    "sharpnr": -0.02,
}
