"""Products made again from the record of how they were made: whether every byte is the same."""

import tempfile
from dataclasses import replace
from pathlib import Path

from broker.bench_rows import Row, at_least, at_most
from broker.errors import AlertError
from broker.imaging.fits import Defaults
from broker.imaging.raw_fits import write_snaps
from broker.ops.image_files import Choices
from broker.ops.image_provenance import Task, checksum, make, recreate
from broker.simulation.exposure import draw_exposure
from broker.simulation.observatory import simulate_night
from broker.simulation.settings import SMALL

_SEED, _IMAGES = 31, 3


def rows(side: int, repeats: int) -> list[Row]:  # noqa: ARG001  nothing is timed
    """Reduce pairs of snaps, stack, search and subtract them, and make each product again."""
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as name:
        folder = Path(name)
        home, out = folder / "home", folder / "out"
        raw = _draw(folder / "raw")
        for task in _tasks(raw, out):
            make(task, home)
        products = sorted(path for path in out.iterdir() if path.is_file())
        same = sum(_is_same(home, path, folder / "again") for path in products)
        reduced = out / f"{raw[0][0].stem}-reduced.fits"
        raw[0][0].write_bytes(raw[0][0].read_bytes()[:-2880] + b"\1" * 2880)
        refused = _is_refused(home, reduced, folder / "again")
    count = len(products)
    return [
        at_most(f"provenance, products of {count} with other bytes", count - same, 0.0, "0"),
        at_least("provenance, a changed input is refused", float(refused), 1.0, ""),
    ]


def _draw(folder: Path) -> list[tuple[Path, Path]]:
    """Write pairs of raw snaps of one field and band; return their files."""
    survey = replace(SMALL, bands=("r",), detectors=1, detector_px=512)
    pairs = []
    for visit in simulate_night(seed=_SEED, settings=survey).visits[:_IMAGES]:
        stem = f"visit{visit.visit}"
        write_snaps(folder, stem, draw_exposure(_SEED, survey, visit, 0).raw)
        pairs.append((folder / f"{stem}-snap0.fits", folder / f"{stem}-snap1.fits"))
    return pairs


def _tasks(raw: list[tuple[Path, Path]], out: Path) -> list[Task]:
    choices = Choices(out, Defaults())
    reduced = [out / f"{first.stem}-reduced.fits" for first, _ in raw]
    deep = out / "deep.fits"
    return [
        *(Task("snaps", {"raw": pair}, choices) for pair in raw),
        Task("detect", {"image": (reduced[0],)}, choices),
        Task("coadd", {"image": tuple(reduced[1:])}, choices, {"file": deep.name}),
        Task("difference", {"image": (reduced[0],), "template": (deep,)}, choices),
    ]


def _is_same(home: Path, product: Path, again: Path) -> bool:
    made = {Path(row["file"]).name: row for row in recreate(home, str(product), again)}
    row = made[product.name]
    return bool(row["identical"]) and checksum(Path(row["file"])) == checksum(product)


def _is_refused(home: Path, product: Path, again: Path) -> bool:
    try:
        recreate(home, str(product), again)
    except AlertError:
        return True
    return False
