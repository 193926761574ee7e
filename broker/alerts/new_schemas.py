"""Schemas that a survey began to use after this version of the broker was made.

A file `<survey>/<major>.<minor>.avsc` in the folder `schemas` of the broker's home is as good as
one that came with it, from the next batch on. One that cannot be used is left out and said in the
log; it is looked at again when it has changed.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from broker import avro
from broker.alerts.adapter import Adapter
from broker.alerts.schema import reader_schema
from broker.avro import Schema
from broker.errors import ConfigError

_LOG = logging.getLogger(__name__)

_Stamp = tuple[tuple[str, int, int], ...]


class NewSchemas:
    """The schemas in a folder, looked at whenever adapters are asked for.

    Parameters
    ----------
    folder : Path
        With a folder a survey in it; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp: _Stamp = ()
        self._adapters: dict[str, Adapter] = {}

    def added_to(self, adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
        """Return adapters that know the folder's schemas too; the same object until it changes."""
        stamp = self._look(adapters)
        if not self._adapters or stamp != self._stamp:
            self._adapters, self._stamp = self._made(adapters), stamp
        return self._adapters

    def _look(self, adapters: Mapping[str, Adapter]) -> _Stamp:
        found = []
        for survey in sorted(adapters):
            for path in _files(self.folder / survey):
                with suppress(FileNotFoundError):  # it was there a moment ago
                    known = path.stat()
                    found.append((str(path), known.st_mtime_ns, known.st_size))
        return tuple(found)

    def _made(self, adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
        made = dict(adapters)
        for survey in adapters:
            for path in _files(self.folder / survey):
                try:
                    key, schema = usable_schema(made[survey], path)
                except ConfigError as error:
                    _LOG.warning("a new schema is left out: %s", error.message)
                    continue
                if key not in made[survey].schemas:
                    schemas = {**made[survey].schemas, key: schema}
                    made[survey] = replace(made[survey], schemas=schemas)
                    _LOG.info("packets of %s may have schema %s now", survey, path.stem)
        return made


def usable_schema(adapter: Adapter, path: Path) -> tuple[int, Schema]:
    """Return the key and the schema of a file, if packets written with it can be read.

    Parameters
    ----------
    adapter : Adapter
        Of the survey whose packets have it.
    path : Path
        A file `<major>.<minor>.avsc`.

    Raises
    ------
    ConfigError
        If it is no schema, lacks what tells its packets, has another type where a field is used,
        or has the id of a schema that is known and is another one.
    """
    try:
        schema = dict(json.loads(path.read_text(encoding="utf-8")))
        avro.parse(schema)
        key = adapter.identify(path.stem, schema)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        reason = f"{type(error).__name__} {error}"
        raise ConfigError(f"{path} is no schema of survey {adapter.survey}: {reason}") from error
    try:
        reader_schema(schema, adapter.struct)
    except (ConfigError, KeyError, TypeError) as error:
        raise ConfigError(f"packets of {path} cannot be used: {error}") from error
    known = adapter.schemas.get(key)
    if known is not None and known != schema:
        raise ConfigError(f"{path} is not the schema that is known by its id {key}")
    return key, schema


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.avsc")) if folder.is_dir() else []
