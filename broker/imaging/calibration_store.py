"""Sets of master calibrations by name: a raw exposure names the set that is for it."""

import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from broker.errors import ConfigError
from broker.imaging.image import Image, RawExposure
from broker.imaging.isr import Masters
from broker.imaging.message import to_image
from broker.imaging.reduce import NoCalibrationError

_NAMES = ("bias", "dark", "flat", "defects")
_KEPT = 32


class CalibrationStore:
    """A folder of sets, each a folder with a file a detector; a set never changes.

    Parameters
    ----------
    path : Path
        The folder, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, templates: Path) -> "CalibrationStore":
        """Return the store of a run whose templates are in a folder `…/templates/<run>`.

        It is `…/calibrations/<run>`.
        """
        return cls(templates.parent.parent / "calibrations" / templates.name)

    def names(self) -> list[str]:
        """Return the names of the sets, sorted."""
        if not self.path.is_dir():
            return []
        return sorted(p.name for p in self.path.iterdir() if p.is_dir() and p.name[0] != ".")

    def put(self, name: str, masters: Mapping[int, Masters]) -> None:
        """Store a set, whole or not at all; one of that name that is there stays.

        Raises
        ------
        ConfigError
            If the name cannot be that of a folder.
        """
        if not name or name[0] == "." or "/" in name:
            raise ConfigError(f"{name!r} cannot name a set of calibrations")
        if (self.path / name).is_dir():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".draft-{name}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for detector, planes in masters.items():
            known = {n: getattr(planes, n) for n in _NAMES if getattr(planes, n) is not None}
            np.savez(draft / f"{detector}.npz", **known)
        draft.rename(self.path / name)

    def find(self, name: str, detector: int) -> Masters:
        """Return a detector's masters of a set.

        Raises
        ------
        NoCalibrationError
            If there is no such set, or it has not this detector.
        """
        file = self.path / name / f"{detector}.npz"
        if not name or name[0] == "." or "/" in name or not file.is_file():
            raise NoCalibrationError(
                f"there are no calibrations {name!r} of detector {detector}",
                calibrationSet=name,
                detector=detector,
            )
        return _load(file, file.stat().st_mtime_ns)

    def image(self, exposure: RawExposure) -> Image:
        """Return the image of an exposure, its signature taken out with the set that it names.

        Raises
        ------
        NoCalibrationError
            If that is not there.
        AlertError
            If the exposure cannot be used.
        """
        if exposure.layout is None or not exposure.calibration_set:
            return to_image(exposure)
        masters = self.find(exposure.calibration_set, exposure.calibration.detector)
        return to_image(exposure, masters)


@lru_cache(maxsize=_KEPT)
def _load(file: Path, stamp: int) -> Masters:  # noqa: ARG001  (key of the cache)
    with np.load(file) as arrays:
        return Masters(**{name: arrays[name] for name in arrays.files})
