"""A small season becomes a data release whose numbers are those of the simulated sky."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.spatial import cKDTree

from broker.batch.release import make_release
from broker.imaging.fits import read_image, write_image
from broker.imaging.message import to_image
from broker.simulation.observatory import reference_catalog, simulate_night
from broker.simulation.settings import TEST
from broker.simulation.truth import truth_of
from broker.units import mag_to_flux

SEED = 5
NIGHTS = (0, 40, 80, 120)
SEASON = replace(TEST, detector_px=512, star_density=60_000.0, galaxy_density=6_000.0)
SEASON = replace(SEASON, transient_density=50_000.0)


@pytest.fixture(scope="module")
def season(tmp_path_factory):
    """Eight reduced images of four nights, and the truth of their transients."""
    folder, truth = tmp_path_factory.mktemp("season"), []
    for index in NIGHTS:
        night = simulate_night(seed=SEED, night_index=index, settings=SEASON)
        for visit in night.visits:
            drawn = night.draw(visit, 0)
            write_image(folder / f"{visit.visit}.fits", to_image(drawn.raw))
            truth.append(truth_of(SEED, SEASON, drawn))
    (folder / "notes.fits").write_text("no image")
    return folder, pa.concat_tables(truth)


@pytest.fixture(scope="module")
def release(season, tmp_path_factory):
    out = tmp_path_factory.mktemp("release")
    done = make_release(list(season[0].glob("*.fits")), out)
    return out, done


def table(release, name):
    return pq.read_table(release[0] / f"{name}.parquet")


def arrays(found, *names):
    return [found[name].to_numpy().astype(float) for name in names]


def nearest(ra, dec, others_ra, others_dec):
    """Return the row of the nearest other, and its distance. [arcsec]"""
    scale = np.cos(np.radians(np.mean(dec))) * 3600.0
    places = [
        np.column_stack([r * scale, d * 3600.0]) for r, d in ((ra, dec), (others_ra, others_dec))
    ]
    gap, row = cKDTree(places[1]).query(places[0])
    return row, gap


def lone_stars():
    """Stars with no other catalogued object within 4 arcsec: ra, dec, r magnitude."""
    sky = reference_catalog(SEED, SEASON)
    ra, dec = arrays(sky, "ra", "dec")
    scale = np.cos(np.radians(np.mean(dec)))
    places = np.column_stack([ra * scale, dec]) * 3600.0
    alone = cKDTree(places).query(places, k=2)[0][:, 1] > 4.0
    star = pc.equal(sky["class"], "star").to_numpy() & alone
    return ra[star], dec[star], sky["mag"].to_numpy()[star].astype(float)


def test_bright_stars_are_objects_with_their_places_and_fluxes(release):
    objects = table(release, "Object")
    ra, dec, flux, error = arrays(objects, "ra", "dec", "r_psfFlux", "r_psfFluxErr")
    entry = lone_stars()
    row, gap = nearest(ra, dec, entry[0], entry[1])
    snr = flux / error
    good = (gap < 0.5) & (snr > 20.0) & (objects["flags"].to_numpy() == 0)

    assert good.sum() > 20
    truth = mag_to_flux(entry[2][row[good]])
    pull = (flux[good] - truth) / error[good]
    assert abs(np.median(pull)) < 0.5  # three standard errors of the median of 60
    assert 1.4826 * np.median(np.abs(pull)) < 1.5
    assert np.median(gap[good]) < 0.03


def test_every_object_has_a_flux_in_every_image_that_covers_it(release):
    objects, forced = table(release, "Object"), table(release, "ForcedSource")
    counts = pc.value_counts(forced["objectId"]).to_pylist()

    clean = objects.filter(pc.equal(objects["flags"], 0))
    assert {c["values"] for c in counts} >= set(clean["objectId"].to_pylist())
    assert max(c["counts"] for c in counts) == 8
    means = {}
    for one in forced.to_pylist():
        if one["psfFlux"] is not None:
            means.setdefault(one["objectId"], []).append((one["psfFlux"], one["psfFluxErr"]))
    entry = lone_stars()
    row, gap = nearest(*arrays(objects, "ra", "dec"), entry[0], entry[1])
    pulls = []
    for k, number in enumerate(objects["objectId"].to_pylist()):
        values = np.array(means.get(number, np.empty((0, 2))))
        if gap[k] < 0.3 and objects["flags"][k].as_py() == 0 and len(values) == 8:
            truth = float(mag_to_flux(entry[2][row[k]]))
            pulls += ((values[:, 0] - truth) / np.hypot(values[:, 1], 0.01 * truth)).tolist()
    assert len(pulls) > 200
    assert abs(np.median(pulls)) < 0.4
    assert 0.5 < 1.4826 * np.median(np.abs(pulls)) < 1.6


def test_sources_of_several_visits_are_one_cluster_of_one_object(release):
    sources, clusters = table(release, "Source"), table(release, "SourceCluster")
    strong = sources.filter(pc.greater(sources["snr"], 15.0))

    joined = strong["clusterId"].null_count / len(strong)
    assert joined < 0.1
    assert strong["objectId"].null_count / len(strong) < 0.1
    assert set(clusters["clusterId"].to_pylist()) == set(
        sources["clusterId"].drop_null().to_pylist()
    )
    assert np.median(clusters["scatterArcsec"].to_numpy()) < 0.15
    sizes = np.array(clusters["nSources"].to_pylist())
    assert np.mean(sizes == 8) > 0.5
    assert np.mean(sizes > 8) < 0.05  # two stars that some visits see as one


def test_bad_sources_are_apart_with_a_reason(release):
    good, bad = table(release, "Source"), table(release, "BadSource")

    assert len(bad) > 0
    assert all(bad["reason"].to_pylist())
    assert not set(good["sourceId"].to_pylist()) & set(bad["sourceId"].to_pylist())
    assert "reason" not in good.column_names
    edge = [r for r in bad.to_pylist() if "EDGE" in r["reason"]]
    assert all(min(r["x"], r["y"], 511 - r["x"], 511 - r["y"]) < 30 for r in edge)


def changed(truth):
    """Return place and greatest change, in errors, of transients against other nights' mean."""
    for _, rows in truth.groupby("transientId"):
        night = rows.midpointMjdTai.round()
        error = (rows.psfFlux / rows.snr).abs()
        others = [rows.scienceFlux[night != n].mean() for n in night]
        if len(rows) == 8 and rows.isVisible.all():
            yield (
                rows.ra.iloc[0],
                rows.dec.iloc[0],
                ((rows.scienceFlux - others).abs() / error).max(),
            )


def test_transients_are_followed_through_all_images(release, season):
    places = np.array(list(changed(season[1].to_pandas())))
    objects, forced = table(release, "DiaObject"), table(release, "DiaForcedSource").to_pandas()
    clear = places[places[:, 2] > 10.0]

    row, gap = nearest(clear[:, 0], clear[:, 1], *arrays(objects, "ra", "dec"))

    assert len(clear) >= 8
    assert np.mean(gap < 0.3) >= 0.9
    ids = objects["diaObjectId"].to_pylist()
    for k in row[gap < 0.3]:
        assert len(set(forced[forced.diaObjectId == ids[k]].visit)) == 8


def test_a_release_says_what_it_is_made_of(release, season):
    out, done = release

    assert done.images == 8
    assert [p["reason"] for p in done.problems if "notes" in p["path"]] == [
        f"{season[0]}/notes.fits: it is not FITS: it does not start with SIMPLE"
    ]
    assert (out / "provenance.json").read_text().count("sha256") == 8
    assert "| Object |" in (out / "README.md").read_text()
    assert len(list((out / "psf").iterdir())) == 8
    assert len(table(release, "Psf")) == 8
    for path in (out / "coadds").iterdir():
        assert read_image(path).meta["nVisits"] == 8
    assert {p.stem for p in out.glob("*.csv")} == {p.stem for p in out.glob("*.parquet")}


def test_spark_makes_the_same_bytes(spark, release, season, tmp_path):
    make_release(list(season[0].glob("*.fits")), tmp_path, spark=spark)

    own, spark_s = (
        set((folder / "SHA256SUMS").read_text().splitlines()) for folder in (release[0], tmp_path)
    )
    assert not own ^ spark_s
    assert len(own) > 30
