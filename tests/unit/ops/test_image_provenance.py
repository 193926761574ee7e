"""Every product says how it was made, and is made again byte for byte."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from click.testing import CliRunner

from broker.cli.main import cli
from broker.errors import AlertError
from broker.imaging.fits import write_raw
from broker.ops.image_bench.quality import SETTINGS
from broker.ops.image_provenance import checksum, find, keep, recreate
from broker.simulation.exposure import draw_exposure
from broker.simulation.observatory import simulate_night

SURVEY = replace(SETTINGS, detector_px=256)
VISITS = simulate_night(seed=6, settings=SURVEY).visits


def run(home, *arguments):
    environment = {"BROKER_HOME": str(home)}
    done = CliRunner().invoke(cli, ["image", *(str(a) for a in arguments)], env=environment)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Products of most commands, and the home with their records."""
    folder = tmp_path_factory.mktemp("made")
    home = folder / "home"
    raw = [folder / f"raw{k}.fits" for k in range(2)]
    for path, visit in zip(raw, VISITS, strict=True):
        write_raw(path, draw_exposure(6, SURVEY, visit, 0).raw)
    run(home, "reduce", *raw, "--out", folder / "red")
    run(home, "reduce", raw[0], "--out", folder / "red", "--image-format", "fits.gz")
    one, two = (folder / "red" / f"raw{k}-reduced.fits" for k in range(2))
    run(home, "detect", one, "--out", folder / "tables", "--threshold", "7")
    run(home, "detect", one, "--out", folder / "tables", "--format", "csv")
    run(home, "difference", two, one, "--out", folder / "changed", "--format", "vot")
    run(home, "coadd", one, two, "--out", folder / "deep.fits")
    biases = [folder / f"bias{k}.fits" for k in range(3)]
    for k, path in enumerate(biases):
        noise = np.random.default_rng(k).normal(1000.0, 5.0, (64, 64))
        fits.writeto(path, noise.astype(np.uint16))
    run(home, "master", "bias", *biases, "--out", folder / "bias.fits")
    return folder, home


@pytest.mark.slow
@pytest.mark.parametrize(
    "product",
    [
        "red/raw0-reduced.fits",
        "red/raw0-reduced.fits.gz",
        "tables/raw0-reduced-sources.parquet",
        "tables/raw0-reduced-sources.csv",
        "changed/raw1-reduced-difference.fits",
        "changed/raw1-reduced-diasources.vot",
        "deep.fits",
        "bias.fits",
    ],
)
def test_a_product_is_made_again_byte_for_byte(made, tmp_path, product):
    folder, home = made
    first = folder / product
    done = run(home, "recreate", first, "--out", tmp_path, "--json")
    assert all(row["identical"] for row in json.loads(done.stdout))
    assert (tmp_path / first.name).read_bytes() == first.read_bytes()


def test_an_image_names_its_inputs_settings_and_versions(made):
    folder, home = made
    header = fits.getheader(folder / "red" / "raw0-reduced.fits")
    said = json.loads(header["BRKMETA"])["provenance"]
    assert said["id"] == header["PROVID"]
    digest = checksum(folder / "raw0.fits")
    assert said["inputs"] == [{"role": "raw", "name": "raw0.fits", "sha256": digest}]
    assert said["software"]["numpy"] == np.__version__
    assert said["task"] == "reduce"
    assert find(home, header["PROVID"])["inputs"][0]["path"] == str(folder / "raw0.fits")


def test_tables_carry_their_record_where_the_format_has_a_place(made):
    folder, _ = made
    words = pq.read_schema(folder / "tables" / "raw0-reduced-sources.parquet").metadata
    said = json.loads(words[b"provenance"])
    assert said["task"] == "detect"
    assert said["settings"]["choices"]["threshold"] == 7.0
    whole = parse(folder / "changed" / "raw1-reduced-diasources.vot")
    (info,) = (i for i in whole.resources[0].infos if i.name == "provenance")
    said = json.loads(info.value)
    assert [i["role"] for i in said["inputs"]] == ["image", "template"]


def test_an_input_that_changed_or_is_gone_is_named(made, tmp_path):
    folder, home = made
    raw = tmp_path / "raw.fits"
    raw.write_bytes((folder / "raw0.fits").read_bytes())
    run(home, "reduce", raw, "--out", tmp_path / "red")
    product = str(tmp_path / "red" / "raw-reduced.fits")
    raw.write_bytes((folder / "raw1.fits").read_bytes())
    with pytest.raises(AlertError, match=r"its raw .*raw.fits is not what it was"):
        recreate(home, product, tmp_path / "again")
    raw.unlink()
    with pytest.raises(AlertError, match=r"its raw .*raw.fits is gone"):
        recreate(home, product, tmp_path / "again")


def test_what_differs_from_its_record_is_told(made, tmp_path):
    folder, home = made
    kept = find(home, str(folder / "red" / "raw0-reduced.fits"))
    other = kept | {"id": "0" * 16, "products": {"raw0-reduced.fits": "f" * 64}}
    keep(home, other)
    arguments = ["image", "recreate", "0" * 16, "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(cli, arguments, env={"BROKER_HOME": str(home)})
    assert done.exit_code == 20
    assert json.loads(done.stdout)[0]["identical"] is False


def test_a_file_without_a_record_cannot_be_made_again(made):
    folder, home = made
    for what in (str(folder / "raw0.fits"), "abcdef", "../../etc"):
        with pytest.raises(AlertError, match="no record is kept"):
            find(home, what)
