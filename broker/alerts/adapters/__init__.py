"""One file a survey: how its packets become canonical columns. To add a survey, add a file."""

import functools
import importlib
import pkgutil

from broker.alerts.adapter import Adapter
from broker.errors import ConfigError

__all__ = ["find_adapters"]


@functools.cache
def find_adapters() -> dict[str, Adapter]:
    """Return the adapter of each survey: the object `ADAPTER` of each file beside this one.

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
