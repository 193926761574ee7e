"""Kinds of transients, a light-curve model a file: to add one, add a file that defines `CLASS`."""

import functools
import importlib
import pkgutil

from broker.errors import ConfigError
from broker.simulation.contract import TransientClass


@functools.cache
def find_classes() -> tuple[TransientClass, ...]:
    """Return all kinds, in order of their names.

    Raises
    ------
    ConfigError
        If a file has no `CLASS`, or two have one name.
    """
    found: dict[str, tuple[str, TransientClass]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        kind = getattr(module, "CLASS", None)
        if not isinstance(kind, TransientClass):
            raise ConfigError(f"transients/{info.name}.py defines no CLASS, a TransientClass")
        if kind.name in found:
            raise ConfigError(
                f"transients/{found[kind.name][0]}.py and transients/{info.name}.py are both "
                f"named {kind.name!r}"
            )
        found[kind.name] = (info.name, kind)
    return tuple(found[name][1] for name in sorted(found))
