"""A transfer on disk: its question, its parts, how far it is. Loads no Spark.

<home>/transfers/<run>/<id>/request.json      the question and the tables it is about
                           /part-00000.avro   files, each whole when it has its name
                           /part-00000.json   its rows, bytes, SHA-256
                           /manifest.json     all of them: the transfer is done
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from broker import __version__
from broker.batch.transfer import Nights, Plan, Question, make_plan, read_question, transfer_id
from broker.batch.transfer_files import Part
from broker.config import Config
from broker.errors import ConfigError

GROUPS_PER_PART = 10
REQUEST, MANIFEST, STOP = "request.json", "manifest.json", "stop"
QUEUED, RUNNING, STOPPED, DONE = "queued", "running", "stopped", "done"
_MANY = 1000


@dataclass(frozen=True)
class Transfers:
    """All transfers of a run.

    Parameters
    ----------
    folder : Path
        `transfers/<run>` under the home; on a cluster all machines see it.
    nights : Path
        Folder of the nights' tables.
    run : str
        The run's name.
    """

    folder: Path
    nights: Path
    run: str

    def plan(self, question: Question) -> tuple[Plan, Nights]:
        """Return a checked question and the tables that it is about."""
        nights = Nights.of(self.nights, question)
        return make_plan(question, nights.schema()), nights

    def add(self, question: Question) -> str:
        """Put a question in the queue and return its id; one that is there is left as it is.

        Raises
        ------
        ConfigError
            If the question is not allowed, or there are too many.
        """
        _, nights = self.plan(question)
        name = transfer_id(question, nights, self.run)
        folder = self.folder / name
        if not (folder / REQUEST).exists():
            if len(self.names()) >= _MANY:
                raise ConfigError(f"there are {_MANY} transfers already; delete old ones first")
            folder.mkdir(parents=True, exist_ok=True)
            request = {"question": question.as_json(), "nights": nights.identity, "run": self.run}
            write_json(folder / REQUEST, request)
        (folder / STOP).unlink(missing_ok=True)
        return name

    def names(self) -> list[str]:
        """Return the ids of all transfers, the newest last."""
        found = self.folder.glob(f"*/{REQUEST}")
        return [p.parent.name for p in sorted(found, key=lambda p: (p.stat().st_mtime_ns, p))]

    def open(self, name: str) -> "Transfer":
        """Return a transfer.

        Raises
        ------
        ConfigError
            If there is none of that id.
        """
        is_name = len(name) == 16 and name.isascii() and name.isalnum()
        if not (is_name and (self.folder / name / REQUEST).exists()):
            raise ConfigError(f"there is no transfer {name!r} in run {self.run}", name=name)
        request = json.loads((self.folder / name / REQUEST).read_text(encoding="utf-8"))
        return Transfer(self.folder / name, read_question(request["question"]), request, self)

    def waiting(self) -> list[str]:
        """Return the ids of transfers that are neither done nor stopped."""
        return [n for n in self.names() if self.open(n).state()["state"] in (QUEUED, RUNNING)]


@dataclass(frozen=True)
class Transfer:
    """One transfer: its folder, its question, what was asked for."""

    folder: Path
    question: Question
    request: Mapping[str, Any]
    among: Transfers

    def opened(self) -> tuple[Plan, Nights]:
        """Return the plan and the tables.

        Raises
        ------
        ConfigError
            If a table has changed since the transfer was begun: its parts would not fit together.
        """
        plan, nights = self.among.plan(self.question)
        if nights.identity != self.request["nights"]:
            raise ConfigError(
                f"the tables of nights have changed since transfer {self.folder.name} was begun; "
                "start it anew"
            )
        return plan, nights

    def tasks(self, nights: Nights) -> list[tuple[str, str, list[int]]]:
        """Return what each part is made of: its name, the night's file, row groups."""
        made: list[tuple[str, str, list[int]]] = []
        for file in nights.files:
            groups = list(range(pq.read_metadata(file).num_row_groups))
            for low in range(0, len(groups), GROUPS_PER_PART):
                name = f"part-{len(made):05d}.{self.question.form}"
                made.append((name, str(file), groups[low : low + GROUPS_PER_PART]))
        return made

    def parts(self) -> dict[str, Part]:
        """Return the parts that are whole, by name."""
        found = {}
        for path in sorted(self.folder.glob("part-*.json")):
            part = Part(**json.loads(path.read_text(encoding="utf-8")))
            if (self.folder / part.name).exists():
                found[part.name] = part
        return found

    @property
    def is_stopped(self) -> bool:
        """Whether someone asked it to stop."""
        return (self.folder / STOP).exists()

    def stop(self) -> None:
        """Ask it to stop after the parts that are being made; `Transfers.add` goes on with it."""
        (self.folder / STOP).touch()

    def manifest(self) -> dict[str, Any] | None:
        """Return the list of files; None while it is not done."""
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def finish(self, plan: Plan, tasks: list[tuple[str, str, list[int]]]) -> dict[str, Any]:
        """Write the list of files; all parts are there."""
        parts = self.parts()
        files = [parts[name].as_json() for name, _, _ in tasks]
        columns = [
            {"name": f.name, "type": str(f.type),
             **{k.decode(): v.decode() for k, v in (f.metadata or {}).items()}}
            for f in plan.schema
        ]  # fmt: skip
        manifest = {
            "id": self.folder.name,
            "version": __version__,
            **self.request,
            "columns": columns,
            "alerts": sum(part["rows"] for part in files),
            "bytes": sum(part["size"] for part in files),
            "withoutPacket": sum(part["without_packet"] for part in files),
            "files": files,
        }
        write_json(self.folder / MANIFEST, manifest)
        return manifest

    def state(self) -> dict[str, Any]:
        """Return how far it is."""
        manifest = self.manifest()
        parts = self.parts()
        row = {"id": self.folder.name, "nights": f"{self.question.first}–{self.question.last}",
               "format": self.question.form, "partsDone": len(parts),
               "alerts": sum(p.rows for p in parts.values()),
               "bytes": sum(p.size for p in parts.values())}  # fmt: skip
        if manifest is not None:
            return {**row, "parts": len(manifest["files"]), "state": DONE}
        nights = Nights.of(self.among.nights, self.question)
        state = STOPPED if self.is_stopped else RUNNING if parts else QUEUED
        return {**row, "parts": len(self.tasks(nights)), "state": state}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
    partial.replace(path)


def transfers_of(config: Config) -> Transfers:
    """Return the transfers of the run that the settings name."""
    return Transfers(config.run_path("transfers"), config.run_path("nights"), config.run)
