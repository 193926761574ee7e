"""FITS files as Spark's rows are what astropy reads from them."""

import decimal
import gzip

import numpy as np
import pytest
from astropy.io import fits
from pyspark.errors import PySparkException

from broker.spark.fits_source import register_fits

N = 1000


@pytest.fixture(scope="module")
def read(spark):
    register_fits(spark)

    def load(path, **options):
        return spark.read.format("fits").options(**options).load(str(path))

    return load


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits-images")
    rng = np.random.default_rng(3)
    floats = rng.normal(10, 2, (30, 40)).astype(np.float32)
    counts = rng.integers(0, 2**16, (25, 35)).astype(np.uint16)
    cube = rng.normal(0, 1, (2, 3, 4))
    header = fits.Header({"OBJECT": "M 31", "EXPTIME": 30.0, "DARK": False})
    header["COMMENT"], header["GAIN"] = "first line", (1.5, "electrons")
    header.add_comment("second line")
    units = [
        fits.PrimaryHDU(floats, header),
        fits.ImageHDU(counts, name="RAW"),
        fits.CompImageHDU(floats * 2, name="TILES", compression_type="GZIP_2", quantize_level=0),
        fits.ImageHDU(cube, name="CUBE"),
    ]
    fits.HDUList(units).writeto(folder / "a.fits")
    fits.PrimaryHDU(floats).writeto(folder / "b.fits.gz")
    return folder


def pixels_of(row):
    return np.frombuffer(row.pixels, row.dtype).reshape(row.shape)


def test_every_image_is_a_row_with_the_pixels_that_astropy_reads(read, images):
    rows = read(images).orderBy("path", "hdu").collect()

    assert [(row.path.rsplit("/")[-1], row.hdu, row.name) for row in rows] == [
        ("a.fits", 0, "PRIMARY"),
        ("a.fits", 1, "RAW"),
        ("a.fits", 2, "TILES"),
        ("a.fits", 3, "CUBE"),
        ("b.fits.gz", 0, "PRIMARY"),
    ]
    for row in rows:
        expected = fits.getdata(row.path, row.hdu)
        assert row.dtype == expected.dtype.newbyteorder("=").name
        np.testing.assert_array_equal(pixels_of(row), expected)
    assert rows[0].header["OBJECT"] == "M 31"
    assert rows[0].header["DARK"] == "F"
    assert float(rows[0].header["GAIN"]) == 1.5
    assert rows[0].header["COMMENT"] == "first line\nsecond line"


@pytest.mark.parametrize("hdu", ["1", "RAW", "raw"])
def test_one_hdu_and_some_columns_are_read_where_asked_for(read, images, hdu):
    frame = read(images / "a.fits", hdu=hdu, columns="shape,dtype,hdu")

    assert frame.columns == ["shape", "dtype", "hdu"]
    assert [tuple(row) for row in frame.collect()] == [([25, 35], "uint16", 1)]
    assert "header" not in read(images, header="false").columns


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with every kind of column, in two files, one of them gzipped."""
    folder = tmp_path_factory.mktemp("fits-tables")
    rng = np.random.default_rng(4)
    whole = rng.integers(-100, 100, N).astype(np.int32)
    whole[::7] = -99
    ragged = np.empty(N, object)
    ragged[:] = [rng.normal(0, 1, k % 4) for k in range(N)]
    column = fits.Column
    columns = [
        column("ID", "K", array=np.arange(N) + 2**60),
        column("flux", "E", array=rng.normal(0, 1, N).astype(np.float32), unit="nJy"),
        column("ra", "D", array=rng.uniform(0, 360, N)),
        column("counts", "J", array=whole, null=-99),
        column("u8", "B", array=rng.integers(0, 256, N).astype(np.uint8)),
        column("s8", "B", bzero=-128, array=rng.integers(-128, 128, N).astype(np.int8)),
        column("u16", "I", bzero=2**15, array=rng.integers(0, 2**16, N).astype(np.uint16)),
        column("u32", "J", bzero=2**31, array=rng.integers(0, 2**32, N).astype(np.uint32)),
        column("u64", "K", bzero=2**63, array=rng.integers(0, 2**64, N, dtype=np.uint64)),
        column("scaled", "I", array=rng.integers(0, 99, N).astype(np.int16)),
        column("ok", "L", array=rng.random(N) < 0.5),
        column("name", "8A", array=np.array([f"star {k}" for k in range(N)])),
        column("vector", "3E", array=rng.normal(0, 1, (N, 3)).astype(np.float32)),
        column("bits", "11X", array=rng.random((N, 11)) < 0.5),
        column("z", "M", array=rng.normal(0, 1, N) + 1j * rng.normal(0, 1, N)),
        column("ragged", "PD()", array=ragged),
    ]
    unit = fits.BinTableHDU.from_columns(columns, name="SOURCES")
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(folder / "a.fits")
    number = unit.columns.names.index("scaled") + 1
    # As text, since astropy would scale the numbers back when it writes.
    body = (folder / "a.fits").read_bytes()
    end = b"END".ljust(80)
    at = body.index(end, 2880)
    cards = (
        "".join(
            f"{key}{number:<{8 - len(key)}}= {value:>20}".ljust(80)
            for key, value in (("TSCAL", "0.5"), ("TZERO", "10.0"))
        ).encode()
        + end
    )
    assert not body[at + 80 : at + len(cards)].strip()
    body = body[:at] + cards + body[at + len(cards) :]
    (folder / "a.fits").write_bytes(body)
    (folder / "b.fits.gz").write_bytes(gzip.compress(body))
    return folder


def plain(value):
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return decimal.Decimal(value) if isinstance(value, int) and value >= 2**63 else value


def test_every_kind_of_column_is_what_astropy_reads(read, table):
    rows = read(table / "a.fits", rowsPerPartition="300").orderBy("ID").collect()

    data = fits.getdata(table / "a.fits", 1)
    assert len(rows) == N
    for name in data.names:
        got = [row[name] for row in rows]
        if name == "z":
            assert [complex(v.re, v.im) for v in got] == data["z"].tolist()
        elif name == "counts":
            assert got == [None if v == -99 else v for v in data["counts"].tolist()]
        elif name == "u64":
            assert [int(v) for v in got] == [int(v) for v in data["u64"]]
        else:
            assert got == [plain(v) for v in data[name]], name


def test_types_are_the_narrowest_that_hold_every_value(read, table):
    kinds = dict(read(table / "a.fits").dtypes)

    assert kinds == {
        "ID": "bigint",
        "flux": "float",
        "ra": "double",
        "counts": "int",
        "u8": "smallint",
        "s8": "tinyint",
        "u16": "int",
        "u32": "bigint",
        "u64": "decimal(20,0)",
        "scaled": "double",
        "ok": "boolean",
        "name": "string",
        "vector": "array<float>",
        "bits": "array<boolean>",
        "z": "struct<re:double,im:double>",
        "ragged": "array<double>",
    }


def test_tables_are_split_by_rows_and_columns_are_chosen(read, table):
    frame = read(table, columns="id,flux", rowsPerPartition="300", header="true")

    assert frame.columns == ["path", "header", "ID", "flux"]
    assert frame.rdd.getNumPartitions() == 5  # four of the plain file, one of the gzipped
    found = frame.toArrow()
    assert found.num_rows == 2 * N
    one, two = (
        found.filter([p.endswith(e) for p in found["path"].to_pylist()]) for e in ("s", "z")
    )
    assert one["flux"].to_pylist() == two["flux"].to_pylist()
    assert dict(found["header"][0].as_py())["EXTNAME"] == "SOURCES"


def bad_files(folder, good):
    body = good.read_bytes()
    (folder / "good.fits").write_bytes(body)
    (folder / "short.fits").write_bytes(body[: len(body) - 2780])
    (folder / "text.fits").write_text("no image")


@pytest.mark.parametrize("kind", ["images", "tables"])
def test_bad_files_end_the_job_or_are_rows_that_say_why(read, images, table, kind, tmp_path):
    good = {"images": images / "a.fits", "tables": table / "a.fits"}[kind]
    bad_files(tmp_path, good)

    rows = read(tmp_path, mode="report").select("path", "error").distinct().collect()

    assert {row.path.rsplit("/")[-1]: row.error and row.error[:12] for row in rows} == {
        "good.fits": None,
        "short.fits": "it is cut sh",
        "text.fits": "it is not FI",
    }
    # Each file is a task of its own: either of the bad ones may be the first to end the job.
    either = r"short\.fits: it is cut short|text\.fits: it is not FITS"
    with pytest.raises(PySparkException, match=either):
        read(tmp_path, mode="fail").collect()


def test_what_cannot_be_read_is_said(read, table, tmp_path):
    with pytest.raises(PySparkException, match="no FITS files"):
        read(tmp_path).schema  # noqa: B018
    with pytest.raises(PySparkException, match="no columns"):
        read(table, columns="ID,nothing").schema  # noqa: B018
    with pytest.raises(PySparkException, match="fail or report"):
        read(table, mode="maybe").schema  # noqa: B018
