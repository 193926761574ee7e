"""The canonical columns: what every survey's packet becomes, and all that modules see.

Wire names are camelCase, Python names the same words in snake_case, converted here only.
"""

import re
from dataclasses import dataclass

import pyarrow as pa

ARROW_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
}

AVRO_TYPES = {
    "bool": "boolean",
    "int32": "int",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "string": "string",
    "binary": "bytes",
}

KINDS = ("detection", "upper-limit", "forced")
"""Kinds of a history entry, by their code."""

DETECTION, UPPER_LIMIT, FORCED = range(3)


@dataclass(frozen=True)
class Column:
    """One declared column: the only place its name, type and unit appear.

    Parameters
    ----------
    name : str
        Its name on the wire, camelCase.
    dtype : str
        One of `ARROW_TYPES`.
    unit : str
        Unit, empty if it has none.
    doc : str
        One sentence.
    nullable : bool
        Whether null (not computed, not said) is allowed.
    """

    name: str
    dtype: str
    unit: str
    doc: str
    nullable: bool = True

    @property
    def arrow_type(self) -> pa.DataType:
        """Its type in Arrow."""
        return ARROW_TYPES[self.dtype]

    @property
    def python_name(self) -> str:
        """Its name as a parameter, snake_case."""
        return snake_case(self.name)


def snake_case(wire_name: str) -> str:
    """Return the Python name of a wire name: `diaSourceId` becomes `dia_source_id`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", wire_name).lower()


def camel_case(python_name: str) -> str:
    """Return the wire name of a Python name: `dia_source_id` becomes `diaSourceId`."""
    first, *rest = python_name.split("_")
    return first + "".join(word.capitalize() for word in rest)


HISTORY = pa.list_(
    pa.struct(
        [
            pa.field("midpointMjdTai", pa.float64(), nullable=False),
            pa.field("band", pa.string()),
            pa.field("psfFlux", pa.float32()),
            pa.field("psfFluxErr", pa.float32()),
            pa.field("isPublic", pa.bool_(), nullable=False),
            pa.field("kind", pa.int8(), nullable=False),
        ]
    )
)
"""Arrow type of `history`: epochs in time order, the alert's own last. Flux in nJy, null for an
upper limit (its error then comes from the limit); `kind` is an index into `KINDS`."""

_req = {"nullable": False}

SCALARS: tuple[Column, ...] = (
    Column("survey", "string", "", "Survey the packet came from: sim, ztf, lsst.", **_req),
    Column(
        "diaSourceId", "string", "", "Identifier of the diaSource, unique in its survey.", **_req
    ),
    Column(
        "diaObjectId", "string", "", "Identifier of the diaObject; null for a solar-system alert."
    ),
    Column("ssObjectId", "string", "", "Identifier of the solar-system object, if it is one."),
    Column(
        "ssSeparation", "float32", "arcsec", "Distance from the solar-system object's prediction."
    ),
    Column("isPublic", "bool", "", "Whether the survey lets everyone see this alert.", **_req),
    Column("midpointMjdTai", "float64", "d", "Middle of the exposure, MJD, TAI.", **_req),
    Column("visit", "int64", "", "Identifier of the visit."),
    Column("detector", "int32", "", "Number of the detector."),
    Column("band", "string", "", "Passband: u g r i z y; null if the packet's is not known."),
    Column("ra", "float64", "deg", "Right ascension, ICRS.", **_req),
    Column("dec", "float64", "deg", "Declination, ICRS.", **_req),
    Column("raErr", "float32", "deg", "1-sigma error of ra, on the sky (times cos dec)."),
    Column("decErr", "float32", "deg", "1-sigma error of dec."),
    Column("psfFlux", "float32", "nJy", "PSF flux on the difference image.", **_req),
    Column("psfFluxErr", "float32", "nJy", "1-sigma error of psfFlux.", **_req),
    Column("snr", "float32", "", "Signal to noise of the detection.", **_req),
    Column("templateFlux", "float32", "nJy", "Flux of the template at this place."),
    Column("templateFluxErr", "float32", "nJy", "1-sigma error of templateFlux."),
    Column("scienceFlux", "float32", "nJy", "Flux on the science image at this place."),
    Column("scienceFluxErr", "float32", "nJy", "1-sigma error of scienceFlux."),
    Column("reliability", "float32", "", "Real/bogus score: 0 artefact, 1 real."),
    Column("isNegative", "bool", "", "Whether the source is fainter than in the template.", **_req),
    Column("isDipole", "bool", "", "Whether it looks like two sources of opposite sign.", **_req),
    Column("flags", "int64", "", "Quality flags, a bit each.", **_req),
    Column("fwhm", "float32", "arcsec", "Full width at half maximum of the source or the seeing."),
    Column("elongation", "float32", "", "Ratio of the major to the minor axis."),
    Column("limitingMag", "float32", "mag", "5-sigma limiting AB magnitude of the image."),
    Column("zeroPoint", "float32", "mag", "AB magnitude of one count in the exposure."),
    Column("firstMjdTai", "float64", "d", "Time of the object's first detection."),
    Column("nDiaSources", "int32", "", "Detections of the object, this one among them."),
    Column("ageDays", "float64", "d", "Time since the first detection."),
)
"""The canonical columns with one value an alert."""

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
"""The canonical columns with images: FITS, gzipped or not; null where the packet has none."""

ORIGIN = pa.struct(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("schemaId", pa.int64(), nullable=False),
    ]
)
"""Arrow type of `origin`: where the packet stood, and the schema it was written with (0: its own
file header)."""

CANONICAL = pa.schema(
    [pa.field(c.name, c.arrow_type, c.nullable) for c in SCALARS]
    + [pa.field("history", HISTORY, nullable=False)]
    + [pa.field(name, pa.binary()) for name in CUTOUTS]
    + [pa.field("origin", ORIGIN, nullable=False)]
)
"""Arrow schema of a batch of canonical alerts."""

BY_NAME = {column.name: column for column in SCALARS}

MATCH_COLUMNS: tuple[Column, ...] = (
    Column("match", "int32", "", "1 found, 0 searched and none there, -1 not searched.", **_req),
    Column("id", "string", "", "Identifier of the nearest entry."),
    Column("separation", "float32", "arcsec", "Distance from the nearest entry."),
    Column("version", "string", "", "Version of the catalogue that was searched."),
)
"""What every catalogue match has. As columns of a batch they are named
`<catalogue>Match`, `<catalogue>Id`, `<catalogue>Separation`, `<catalogue>Version`, and attached
catalogue columns `<catalogue><Column>`: so a module's parameter is `gaia_match`."""

FOUND, NOT_FOUND, NOT_SEARCHED = 1, 0, -1

NOTICES = "notices"
"""First part of the names of the columns below: no catalogue has this name."""

NOTICE_COLUMNS: tuple[Column, ...] = (
    Column(
        "noticesMatch",
        "int32",
        "",
        "1 a notice in force has it in its region and time, 0 none has, -1 no notice at this time.",
        **_req,
    ),
    Column("noticesId", "string", "", "Identifier of the notice that fits best."),
    Column("noticesSeparation", "float32", "arcsec", "Distance from the notice's likeliest place."),
    Column(
        "noticesCredibleLevel",
        "float32",
        "",
        "Share of the notice's probability at places as likely or likelier.",
    ),
    Column("noticesDelay", "float64", "d", "Time since the notice's trigger, negative before it."),
)
"""What an alert has of the notices, known when it was processed, whose event it may be."""
