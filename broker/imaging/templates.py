"""Templates on disk: which deep image covers a place, by band and version.

A set of templates is frozen: written whole under a version, and never changed. A version's folder
holds one `.npz` file a template and `index.json`.
"""

import json
import shutil
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from broker.errors import ConfigError
from broker.imaging.image import Calibration, Image
from broker.imaging.kernels import F32
from broker.imaging.psf import GaussianPsf
from broker.imaging.warp import image_coefficients
from broker.imaging.wcs import Wcs

_INDEX = "index.json"
_KEPT = 8
"""Templates that a process keeps in memory."""


@dataclass(frozen=True)
class Template:
    """A deep, background-subtracted image of the static sky.

    Parameters
    ----------
    image : Image
    version : str
        Of the set it belongs to; written on every diaSource that was found with it.
    coefficients : NDArray[np.float32], optional
        Spline coefficients of the image, kept with it so that they are made once.
    """

    image: Image
    version: str
    coefficients: F32 | None = None

    def contains(self, visit: int) -> bool:
        """Return whether an exposure went into it; visit 0 is none."""
        return visit > 0 and str(visit) in str(self.image.meta.get("visits", "")).split()


def best_seeing(
    seeing: Sequence[float],
    visits: Sequence[int],
    *,
    most: int | None = None,
    without: Collection[int] = (),
) -> list[int]:
    """Choose the exposures of a template: the sharpest, never those that it is subtracted from.

    Parameters
    ----------
    seeing : sequence of float
        Full width at half maximum of each exposure [arcsec]; one that is not finite is left out.
    visits : sequence of int
    most : int, optional
        How many at most; all without it.
    without : collection of int
        Visits to leave out.

    Returns
    -------
    list of int
        Their numbers in the sequences, the sharpest first, equal ones by visit.
    """
    known = [k for k, v in enumerate(visits) if v not in without and np.isfinite(seeing[k])]
    return sorted(known, key=lambda k: (seeing[k], visits[k], k))[:most]


@dataclass(frozen=True)
class TemplateStore:
    """All sets of templates under a folder.

    Parameters
    ----------
    path : Path
        Its folder; made when the first set is put.
    """

    path: Path

    def put(self, version: str, templates: Iterable[Image | Template]) -> None:
        """Write a set of templates; readers see all of it or nothing.

        Parameters
        ----------
        version : str
            Name of the set: letters, digits, dots, dashes. A set of that name is replaced.
        templates : Iterable[Image or Template]
        """
        if not version or Path(version).name != version or version.startswith("."):
            raise ConfigError(f"{version!r} cannot be the name of a set of templates")
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".{version}-{uuid.uuid4().hex}"
        draft.mkdir()
        index = []
        for number, item in enumerate(templates):
            image = item.image if isinstance(item, Template) else item
            file = f"{number:04d}-{image.band}.npz"
            np.savez(draft / file, pixels=image.pixels, variance=image.variance, mask=image.mask)
            index.append(_describe(image) | {"file": file})
        (draft / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        final = self.path / version
        if final.exists():
            final.rename(self.path / f".{version}-{uuid.uuid4().hex}-old")
        draft.rename(final)
        for old in self.path.glob(f".{version}-*-old"):
            shutil.rmtree(old)

    def versions(self) -> list[str]:
        """Return the versions there are, sorted; empty if there are none."""
        if not self.path.is_dir():
            return []
        return sorted(p.parent.name for p in self.path.glob(f"[!.]*/{_INDEX}"))

    def latest(self) -> str | None:
        """Return the last version in order of names; None if there are none."""
        versions = self.versions()
        return versions[-1] if versions else None

    def find(
        self,
        ra: float,
        dec: float,
        band: str,
        version: str,
        *,
        corners: tuple[Any, Any] | None = None,
    ) -> Template | None:
        """Return the template of a band that covers a place.

        Parameters
        ----------
        ra, dec : float
            A detector's centre. [deg]
        band : str
        version : str
        corners : (array_like, array_like), shape (n,) each, optional
            ra and dec of the detector's corners [deg]: of several templates the one that covers
            most of them is chosen.

        Returns
        -------
        Template or None
            None if no template of this band and version covers the centre.
        """
        folder = self.path / version
        if not (folder / _INDEX).is_file():
            return None
        stamp = (folder / _INDEX).stat().st_mtime_ns
        best: tuple[int, float, str] | None = None
        for entry in _read_index(folder, stamp):
            if entry["band"] != band or not _covers(entry, [ra], [dec]):
                continue
            covered = _covers(entry, *corners) if corners is not None else 1
            rank = (-covered, _distance(entry, ra, dec), entry["file"])
            best = rank if best is None or rank < best else best
        if best is None:
            return None
        return _load(folder, best[2], stamp, version)


def _describe(image: Image) -> dict[str, Any]:
    return {
        "band": image.band,
        "shape": list(image.shape),
        "wcs": asdict(image.wcs),
        "psfSigma": image.psf.sigma,
        "calibration": asdict(image.calibration),
        "meta": image.meta,
    }


def _wcs(entry: dict[str, Any]) -> Wcs:
    numbers = dict(entry["wcs"])
    (a, b), (c, d) = numbers.pop("cd")
    return Wcs(**numbers, cd=((a, b), (c, d)))


def _covers(entry: dict[str, Any], ra: Any, dec: Any) -> int:
    """Return how many of the positions lie on a template."""
    x, y = _wcs(entry).sky_to_pixel(ra, dec)
    ny, nx = entry["shape"]
    inside = (x >= -0.5) & (x <= nx - 0.5) & (y >= -0.5) & (y <= ny - 0.5)
    return int(np.count_nonzero(inside))


def _distance(entry: dict[str, Any], ra: float, dec: float) -> float:
    x, y = _wcs(entry).sky_to_pixel(ra, dec)
    ny, nx = entry["shape"]
    return float(np.hypot(x - (nx - 1) / 2.0, y - (ny - 1) / 2.0))


@lru_cache(maxsize=16)
def _read_index(folder: Path, stamp: int) -> list[dict[str, Any]]:  # noqa: ARG001  (key of the cache)
    index: list[dict[str, Any]] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    return index


@lru_cache(maxsize=_KEPT)
def _load(folder: Path, file: str, stamp: int, version: str) -> Template:
    entry = next(e for e in _read_index(folder, stamp) if e["file"] == file)
    with np.load(folder / file) as arrays:
        image = Image(
            arrays["pixels"],
            arrays["variance"],
            arrays["mask"],
            _wcs(entry),
            GaussianPsf(entry["psfSigma"]),
            Calibration(**entry["calibration"]),
            entry["meta"],
        )
    return Template(image, version, image_coefficients(image))
