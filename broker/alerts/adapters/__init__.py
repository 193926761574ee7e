"""One file a survey: how its packets become canonical columns. To add a survey, add a file."""

import functools
import importlib
import pkgutil
from pathlib import Path

from broker.alerts.adapter import Adapter
from broker.alerts.new_schemas import NewSchemas
from broker.errors import ConfigError

__all__ = ["find_adapters", "look_for_schemas"]

_new: dict[str, NewSchemas] = {}


def look_for_schemas(home: Path) -> None:
    """Let this process take up schemas that are put into the folder `schemas` of a home."""
    folder = home / "schemas"
    if "in" not in _new or _new["in"].folder != folder:
        _new["in"] = NewSchemas(folder)


def find_adapters() -> dict[str, Adapter]:
    """Return the adapter of each survey: the object `ADAPTER` of each file beside this one.

    After `look_for_schemas` they know the schemas that are in the folder now, too.

    Raises
    ------
    ConfigError
        If a file has no `ADAPTER`, or one with another survey's name.
    """
    known = _installed()
    return _new["in"].added_to(known) if _new else known


@functools.cache
def _installed() -> dict[str, Adapter]:
    """Return the adapters with the schemas that came with them.

    Raises
    ------
    ConfigError
        If a file has no `ADAPTER`, or one with another survey's name.
    """
    found: dict[str, Adapter] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        adapter = getattr(module, "ADAPTER", None)
        if not isinstance(adapter, Adapter) or adapter.survey != info.name:
            raise ConfigError(
                f"{module.__file__} must define ADAPTER, an Adapter with survey={info.name!r}"
            )
        found[adapter.survey] = adapter
    return found
