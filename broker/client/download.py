"""Finished transfers over HTTP, in pieces: stopped anywhere, gone on with on any machine, checked.

A folder holds all that is known of a download: the list of files with their sums, whole files, and
of the file that is under way what has come of it. Copied to another machine it goes on there.
"""

import hashlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.errors import AlertError, ConfigError, ServiceError

MANIFEST = "manifest.json"
CHUNK = 4 << 20
_PARTIAL = ".partial"
_TRIES = 5


def download(
    base: str,
    name: str,
    folder: Path,
    *,
    advance: Callable[[int], object] = lambda _: None,
    begin: Callable[[int], object] = lambda _: None,
    chunk: int = CHUNK,
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Download a finished transfer, or what is lacking of it.

    Parameters
    ----------
    base : str
        Address of the broker: `http://host:8800`.
    name : str
        The transfer's id.
    folder : Path
        Made if it is absent; one with a part of the same transfer is gone on with.
    advance, begin : callable
        Told how many bytes have come, and before that how many there are.
    chunk : int
        Bytes that are asked for at once.
    timeout_s : float
        How long to wait for an answer. [s]

    Returns
    -------
    dict
        The list of files, as in `manifest.json`.

    Raises
    ------
    ServiceError
        If the broker does not answer, or there is no such transfer that is done.
    AlertError
        If a file's bytes are not those of the list, also when it was fetched a second time.
    """
    if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
        raise ConfigError(f"{base!r} is no address of a broker: http://host:port")
    root = f"{base.rstrip('/')}/api/v1/transfers/{urllib.parse.quote(name, safe='')}"
    listed, _ = _get(f"{root}/manifest", timeout_s=timeout_s)
    manifest: dict[str, Any] = json.loads(listed)
    folder.mkdir(parents=True, exist_ok=True)
    _same_transfer(folder, manifest)
    (folder / MANIFEST).write_bytes(listed)
    begin(int(manifest["bytes"]))
    for file in manifest["files"]:
        path = folder / _plain_name(file["name"])
        if path.exists() and not problem_of(path, file):
            advance(file["size"])
            continue
        for attempt in (1, 2):
            _fetch(f"{root}/files/{path.name}", path, file["size"], advance, chunk, timeout_s)
            wrong = problem_of(path, file)
            if not wrong:
                break
            path.unlink()
            if attempt == 2:
                raise AlertError(f"{path.name}: {wrong}, also when it was fetched again")
    return manifest


def problem_of(path: Path, file: dict[str, Any]) -> str:
    """Return what is wrong with a file beside what the list says of it; empty if nothing is."""
    if not path.exists():
        return "it is not there"
    if path.stat().st_size != file["size"]:
        return f"it has {path.stat().st_size} bytes, not {file['size']}"
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    return "" if found == file["sha256"] else "its SHA-256 is another"


def _fetch(
    url: str, path: Path, size: int, advance: Callable[[int], object], chunk: int, timeout_s: float
) -> None:
    partial = path.with_name(path.name + _PARTIAL)
    there = partial.stat().st_size if partial.exists() else 0
    if there > size:
        partial.unlink()
        there = 0
    advance(there)
    with partial.open("ab") as out:
        while there < size:
            end = min(there + chunk, size) - 1
            content, status = _get(url, headers={"Range": f"bytes={there}-{end}"},
                                   timeout_s=timeout_s)  # fmt: skip
            if status == 200:  # a proxy that knows no ranges sends the whole
                content = content[there:]
            if not content:
                raise ServiceError(f"{url} ends after {there} of {size} bytes")
            out.write(content)
            there += len(content)
            advance(len(content))
    partial.replace(path)


def _get(url: str, *, headers: dict[str, str] | None = None, timeout_s: float) -> tuple[bytes, int]:
    request = urllib.request.Request(url, headers=headers or {})  # noqa: S310  # checked above
    for attempt in range(_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
                return answer.read(), answer.status
        except urllib.error.HTTPError as error:
            wait_s = error.headers.get("Retry-After", "")
            if error.code not in (429, 503) or attempt == _TRIES - 1:
                raise ServiceError(f"{url}: {error.code}, {_sentence(error)}") from error
            time.sleep(min(float(wait_s) if wait_s.isdigit() else 1.0, 30.0))
        except OSError as error:
            if attempt == _TRIES - 1:
                raise ServiceError(f"{url} does not answer: {error}") from error
            time.sleep(0.2 * 2**attempt)
    raise ServiceError(f"{url} does not answer")


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


def _same_transfer(folder: Path, manifest: dict[str, Any]) -> None:
    there = folder / MANIFEST
    if there.exists() and json.loads(there.read_bytes()).get("id") != manifest["id"]:
        raise ConfigError(f"{folder} holds another transfer; name a new folder")


def _plain_name(name: str) -> str:
    """Return a file's name; what could leave the folder is refused."""
    if Path(name).name != name or name.startswith("."):
        raise AlertError(f"the list of files names {name!r}, which is no plain name")
    return name
