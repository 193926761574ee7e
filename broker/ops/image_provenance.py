"""What an image product was made from, by what, with which settings; and making it again.

Every product carries its record, and a copy with the products' checksums is kept under the
broker's home, in `provenance`, by the record's identifier.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from broker import __version__
from broker.errors import AlertError
from broker.imaging.fits import Defaults, read_frames
from broker.ops import image_catalogs, image_files, image_masters
from broker.ops.image_files import Choices

_LIBRARIES = ("numpy", "numba", "scipy", "astropy")
ID_CHARACTERS = 16
"""Length of a record's identifier."""


@dataclass(frozen=True)
class Task:
    """One piece of work on files.

    Parameters
    ----------
    name : str
        One of those that can be done again: master, reduce, snaps, detect, measure, calibrate,
        difference, coadd.
    inputs : dict of str to tuple of Path
        By what they are: raw, bias, template…
    choices : Choices
        Its folder is where the products go.
    more : dict
        Other settings.
    ready : object
        What has been read of the inputs already; no part of the record.
    """

    name: str
    inputs: Mapping[str, tuple[Path, ...]]
    choices: Choices
    more: Mapping[str, Any] = field(default_factory=dict)
    ready: Any = None


def make(task: Task, home: Path) -> dict[str, Any]:
    """Do a task, write its products with their record, and keep the record.

    Parameters
    ----------
    task : Task
    home : Path
        The broker's home.

    Returns
    -------
    dict
        The row that says how it went.
    """
    record = record_of(task)
    out = task.choices.out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as name:
        row = _perform(task, record, Path(name))
        products = {p.name: checksum(p) for p in sorted(Path(name).iterdir())}
        for file in products:
            (Path(name) / file).replace(out / file)
    keep(home, record | {"folder": str(out.absolute()), "products": products})
    return row


def record_of(task: Task) -> dict[str, Any]:
    """Return the record of a task: inputs with checksums, versions, settings, and their hash."""
    inputs = [
        {"role": role, "path": str(path.absolute()), "sha256": checksum(path)}
        for role, paths in sorted(task.inputs.items())
        for path in paths
    ]
    settings = asdict(task.choices)
    for name in ("out", "record"):
        del settings[name]
    record = {
        "task": task.name,
        "inputs": inputs,
        "settings": {"choices": settings} | dict(task.more),
        "software": software(),
    }
    text = json.dumps(record, sort_keys=True).encode()
    return record | {"id": hashlib.sha256(text).hexdigest()[:ID_CHARACTERS]}


def software() -> dict[str, str]:
    """Return the versions of what makes pixels."""
    found = {"nightjar-broker": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    AlertError
        If there is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AlertError(f"{path}: there is no such file") from error


def keep(home: Path, record: Mapping[str, Any]) -> Path:
    """Write a record under the home; return its file."""
    path = home / "provenance" / f"{record['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    draft.replace(path)
    return path


def find(home: Path, what: str) -> dict[str, Any]:
    """Return the record of a product.

    Parameters
    ----------
    home : Path
    what : str
        Its identifier (PROVID in the header), or the product's file.

    Raises
    ------
    AlertError
        If it is not known.
    """
    folder = home / "provenance"
    path = Path(what)
    if path.is_file():
        what = _identifier(path) or _by_checksum(folder, checksum(path))
    file = folder / f"{Path(what).name}.json"
    if not what or not file.is_file():
        raise AlertError(f"{path}: no record is kept of how it was made")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _identifier(path: Path) -> str:
    try:
        return str(read_frames(path)[0].header.get("PROVID", ""))
    except AlertError:
        return ""


def _by_checksum(folder: Path, digest: str) -> str:
    for file in sorted(folder.glob("*.json")):
        if digest in json.loads(file.read_text(encoding="utf-8"))["products"].values():
            return file.stem
    return ""


def recreate(home: Path, what: str, out: Path) -> list[dict[str, Any]]:
    """Make products again from their record and compare them, byte by byte.

    Parameters
    ----------
    home : Path
    what : str
        As for `find`.
    out : Path
        Folder for the products.

    Returns
    -------
    list of dict
        For each product its file, and whether it is identical to the first.

    Raises
    ------
    AlertError
        If it is not known how it was made, or an input has changed or is gone.
    """
    kept = find(home, what)
    if kept["task"] not in _TASKS:
        raise AlertError(f"{what} is of an image of the stream: name its visit and detector")
    for entry in kept["inputs"]:
        path = Path(entry["path"])
        if not path.is_file():
            raise AlertError(f"its {entry['role']} {path} is gone")
        if checksum(path) != entry["sha256"]:
            raise AlertError(f"its {entry['role']} {path} is not what it was: the checksum differs")
    out.mkdir(parents=True, exist_ok=True)
    task = _task_of(kept, out)
    record = {k: kept[k] for k in ("task", "inputs", "settings", "software", "id")}
    rows = []
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as name:
        _perform(task, record, Path(name))
        for file, digest in kept["products"].items():
            made = Path(name) / file
            same = made.is_file() and checksum(made) == digest
            if made.is_file():
                shutil.move(made, out / file)
            rows.append({"file": str(out / file), "identical": same, "sha256": digest})
    return rows


def changed_software(kept: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what has another version than in a record: then and now."""
    now = software()
    then = kept["software"]
    return {n: (then[n], now.get(n, "")) for n in then if now.get(n) != then[n]}


def _task_of(kept: Mapping[str, Any], out: Path) -> Task:
    inputs: dict[str, tuple[Path, ...]] = {}
    for entry in kept["inputs"]:
        role = entry["role"]
        inputs[role] = (*inputs.get(role, ()), Path(entry["path"]))
    settings = dict(kept["settings"])
    chosen = settings.pop("choices")
    choices = Choices(**chosen | {"out": out, "defaults": Defaults(**chosen["defaults"])})
    return Task(kept["task"], inputs, choices, settings)


def _perform(task: Task, record: Mapping[str, Any], out: Path) -> dict[str, Any]:
    return _TASKS[task.name](replace(task, choices=replace(task.choices, out=out, record=record)))


@lru_cache(maxsize=1)
def _masters(paths: tuple[tuple[Path, int] | None, ...]) -> Any:
    return image_files.read_masters(*(None if p is None else p[0] for p in paths))


def _masters_of(task: Task) -> Any:
    """Return a task's masters, read once for many files; one that is replaced is read again."""
    found = [task.inputs.get(kind, (None,))[0] for kind in ("bias", "dark", "flat")]
    return _masters(tuple(None if p is None else (p, p.stat().st_mtime_ns) for p in found))


def _reduce(task: Task) -> dict[str, Any]:
    return image_files.reduce_file(task.inputs["raw"][0], _masters_of(task), task.choices)


def _snaps(task: Task) -> dict[str, Any]:
    return image_files.reduce_pair(task.inputs["raw"], _masters_of(task), task.choices)


def _detect(task: Task) -> dict[str, Any]:
    return image_files.detect_file(task.inputs["image"][0], task.choices)


def _measure(task: Task) -> dict[str, Any]:
    places = _table(task.inputs["places"][0]) if "places" in task.inputs else None
    models = bool(task.more.get("models"))
    return image_catalogs.measure_file(task.inputs["image"][0], places, task.choices, models=models)


def _calibrate(task: Task) -> dict[str, Any]:
    catalog = _table(task.inputs["catalog"][0])
    mag = str(task.more["mag"])
    return image_catalogs.calibrate_file(task.inputs["image"][0], catalog, mag, task.choices)


def _table(path: Path) -> Any:
    from broker.imaging.tables import read_table

    return read_table(path)


def _difference(task: Task) -> dict[str, Any]:
    new, template = task.inputs["image"][0], task.inputs["template"][0]
    return image_files.difference_file(new, template, task.choices)


def _coadd(task: Task) -> dict[str, Any]:
    target = task.choices.out / str(task.more["file"])
    return image_files.coadd_files(task.inputs["image"], target, task.choices)


def _master(task: Task) -> dict[str, Any]:
    target, kind = task.choices.out / str(task.more["file"]), str(task.more["kind"])
    frames = task.ready
    if frames is None:
        masters = _masters_of(task)
        frames = [
            image_masters.calibration_frame(path, kind, masters, task.choices.defaults)
            for path in task.inputs["frame"]
        ]
    image_masters.write(target, kind, frames, record=image_files.said_of(task.choices.record))
    return {"frames": len(frames)}


_TASKS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "master": _master,
    "reduce": _reduce,
    "snaps": _snaps,
    "detect": _detect,
    "measure": _measure,
    "calibrate": _calibrate,
    "difference": _difference,
    "coadd": _coadd,
}
