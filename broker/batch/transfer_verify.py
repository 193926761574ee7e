"""Whether what was downloaded is what was made."""

import json
from pathlib import Path
from typing import Any

from broker.batch.transfer_files import rows_of, sha256_of
from broker.errors import ConfigError


def verify_folder(folder: Path) -> list[dict[str, Any]]:
    """Check bytes, SHA-256 and the number of alerts of each file that the list names.

    Returns
    -------
    list of dict
        `file`, `alerts`, `bytes`, `problem` (empty if there is none); the last row is the sum.

    Raises
    ------
    ConfigError
        If the folder has no list of files.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise ConfigError(f"{folder} has no manifest.json: it is no download of a transfer")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    rows = [_checked(folder / file["name"], file) for file in manifest["files"]]
    total = {"file": "all", "alerts": sum(r["alerts"] or 0 for r in rows),
             "bytes": sum(r["bytes"] for r in rows), "problem": ""}  # fmt: skip
    if total["alerts"] != manifest["alerts"]:
        total["problem"] = f"{manifest['alerts']} alerts were promised"
    return [*rows, total]


def _checked(path: Path, file: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"file": file["name"], "alerts": None, "bytes": 0, "problem": ""}
    if not path.exists():
        return {**row, "problem": "it is not there"}
    row["bytes"] = path.stat().st_size
    if row["bytes"] != file["size"] or sha256_of(path) != file["sha256"]:
        return {**row, "problem": "its bytes are others"}
    row["alerts"] = rows_of(path)
    if row["alerts"] != file["rows"]:
        row["problem"] = f"{file['rows']} alerts were promised"
    return row
