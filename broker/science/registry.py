"""Finds contributions: a folder with a `module.py` is one, no list is edited."""

import dataclasses
import importlib
import pkgutil
import sys
import types
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from broker.alerts.columns import CUTOUTS as CUTOUT_NAMES
from broker.alerts.columns import SCALARS, Column, camel_case, snake_case
from broker.errors import ConfigError
from broker.science.contract import (
    CUTOUTS,
    LIGHT_CURVES,
    SERIES,
    SHADOW,
    Contribution,
    ScienceModule,
    TopicFilter,
)
from broker.science.static_check import require_harmless

PACKAGE = "science_modules"

Catalogs = Mapping[str, tuple[Column, ...]]


@dataclass(frozen=True)
class Contributions:
    """All science modules, each after those whose outputs it reads, and all filters.

    It can be sent to another process: functions go by their place and are imported there when
    they are first called.

    Parameters
    ----------
    modules : tuple of ScienceModule
        In the order in which they run.
    filters : tuple of TopicFilter
        In the order of their topics.
    path : str
        The modules folder; empty for the installed package.
    """

    modules: tuple[ScienceModule, ...]
    filters: tuple[TopicFilter, ...]
    path: str = ""
    shadows: tuple[ScienceModule, ...] = ()
    """Versions that run beside those in use; nothing reads their outputs, and none is published."""
    columns: Mapping[str, Column] = field(default_factory=dict, repr=False)
    """Columns with one value an alert that the broker itself provides, by parameter name."""

    @property
    def output_columns(self) -> tuple[Column, ...]:
        """What the modules add to a packet, in the order of `Outcome.outputs`."""
        return tuple(column for module in self.modules for column in module.outputs)

    @property
    def qualified_columns(self) -> dict[str, Column]:
        """The same by the names they are stored under, `rise_rate@1.0.0:riseRate`."""
        return {name: c for module in self.modules for name, c in module.qualified.items()}

    @property
    def shadow_columns(self) -> dict[str, Column]:
        """Outputs of the versions that run beside, by the names they are stored under."""
        return {name: c for module in self.shadows for name, c in module.qualified.items()}

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of the filters' topics."""
        return tuple(chosen.topic for chosen in self.filters)

    def module(self, name: str) -> ScienceModule:
        """Return a module by its name; ConfigError if there is none."""
        for module in self.modules:
            if module.name == name:
                return module
        known = ", ".join(module.name for module in self.modules) or "none"
        raise ConfigError(f"there is no science module {name!r}; there are {known}", name=name)

    def provider(self, parameter: str) -> ScienceModule | None:
        """Return the module whose output a parameter names, None if it is not an output."""
        return self._providers.get(parameter)

    @cached_property
    def _providers(self) -> dict[str, ScienceModule]:
        return {c.python_name: module for module in self.modules for c in module.outputs}

    def needed_by(self, contribution: Contribution) -> tuple[ScienceModule, ...]:
        """Return the modules that must run before one, in order, those before them included."""
        names: set[str] = set()
        waiting = [contribution]
        while waiting:
            for parameter in waiting.pop().inputs:
                module = self.provider(parameter)
                if module is not None and module.name not in names:
                    names.add(module.name)
                    waiting.append(module)
        return tuple(module for module in self.modules if module.name in names)

    def only(self, names: Collection[str]) -> "Contributions":
        """Return modules and versions beside by name, with what they read from; no filters."""
        chosen = [m for m in (*self.modules, *self.shadows) if m.name in names]
        needed = {m.name for m in chosen} | {m.name for c in chosen for m in self.needed_by(c)}
        others = {m.name for m in (*self.modules, *self.shadows)} - needed
        return self.without(frozenset({*others, *self.topics}))

    def without(self, names: frozenset[str]) -> "Contributions":
        """Return the contributions less those named."""
        return dataclasses.replace(
            self,
            modules=tuple(m for m in self.modules if m.name not in names),
            filters=tuple(f for f in self.filters if f.topic not in names),
            shadows=tuple(m for m in self.shadows if m.name not in names),
        )


def find_contributions(
    path: str | Path = "",
    *,
    catalogs: Catalogs | None = None,
    filters: str | Path = "",
    check_source: bool = True,
) -> Contributions:
    """Import all module folders and put the contributions in order.

    Parameters
    ----------
    path : str or Path
        Folder of module folders; empty means the installed package `science_modules`.
    catalogs : mapping, optional
        The match columns that a module may ask for, by catalogue; default all that are defined.
    filters : str or Path
        Folder of filters that users gave as one expression; empty means none.
    check_source : bool
        Read each file first, and load none that has to do with network, files, processes or
        threads.

    Raises
    ------
    ConfigError
        If a file does what none may, cannot be imported or declares nothing, a name or an output
        occurs twice, an input is provided by no one, or inputs go in a circle. The message names
        the files.
    """
    path = Path(path).absolute() if str(path) else ""  # a child process has another folder
    package = open_folder(str(path)) if path else PACKAGE
    found: list[Contribution] = []
    folders = _folders(package)
    if check_source:
        for name in folders:
            require_harmless(package, name)
    for name in folders:
        found += load_contributions(package, name, str(path))
    contributions = order_contributions(found, catalogs, str(path))
    if not filters:
        return contributions
    from broker.science.user_filters import with_user_filters

    return with_user_filters(contributions, filters)


def open_folder(path: str) -> str:
    """Make a modules folder importable; return the name of the package it becomes.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; science.modules names one", path=str(folder))
    if (folder / "__init__.py").exists() and folder.name == PACKAGE:
        installed = importlib.import_module(PACKAGE)
        if str(folder) in [str(Path(p).absolute()) for p in installed.__path__]:
            return PACKAGE
    name = f"contributed_{zlib.crc32(str(folder).encode()):08x}"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _folders(package: str) -> list[str]:
    paths = [Path(p) for p in importlib.import_module(package).__path__]
    names = {m.parent.name for p in paths for m in p.glob("*/module.py")}
    names |= {m.name for m in pkgutil.iter_modules(map(str, paths)) if m.ispkg and m.name in names}
    for name in sorted(names):
        if not name.removesuffix(SHADOW).isidentifier():
            raise ConfigError(f"the folder {name} of {paths[0]} cannot be imported: use snake_case")
    return sorted(names)


def load_contributions(package: str, folder: str, path: str = "") -> list[Contribution]:
    """Import one module folder and return what it declares, in the order of the file.

    Raises
    ------
    ConfigError
        If it cannot be imported, or declares nothing.
    """
    try:
        imported = importlib.import_module(f"{package}.{folder}.module")
    except ConfigError:
        raise
    except Exception as error:  # contributed code runs when it is imported
        where = f"{Path(path or package) / folder / 'module.py'}"
        raise ConfigError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    found = [
        dataclasses.replace(value, attribute=name, path=path, file=str(imported.__file__))
        for name, value in vars(imported).items()
        if isinstance(value, Contribution) and _is_declared_in(value, imported.__name__)
    ]
    if not found:
        raise ConfigError(f"{imported.__file__} declares no science module and no filter")
    if not folder.endswith(SHADOW):
        return found
    return [  # a version beside the one in use chooses for no topic
        dataclasses.replace(one, name=one.name + SHADOW)
        for one in found
        if isinstance(one, ScienceModule)
    ]


def _is_declared_in(value: Contribution, module: str) -> bool:
    """Tell a contribution from one that is imported from another module's file."""
    return getattr(value.function, "__module__", module) == module


def load_module(folder: str | Path) -> ScienceModule:
    """Return the science module of one folder: for its own test and for notebooks.

    Raises
    ------
    ConfigError
        If it cannot be imported or does not declare exactly one science module.
    """
    place = Path(folder).absolute()
    found = load_contributions(open_folder(str(place.parent)), place.name, str(place.parent))
    modules = [one for one in found if isinstance(one, ScienceModule)]
    if len(modules) != 1:
        raise ConfigError(f"{place} declares {len(modules)} science modules, not one")
    return modules[0]


def provided_columns(catalogs: Catalogs | None = None) -> dict[str, Column]:
    """Return the scalar columns a module may read, by parameter name.

    Parameters
    ----------
    catalogs : mapping, optional
        Match columns by catalogue; default all that are defined.
    """
    if catalogs is None:
        from broker.catalog.registry import provided_matches

        catalogs = provided_matches()
    columns = [*SCALARS, *(column for match in catalogs.values() for column in match)]
    return {column.python_name: column for column in columns}


def order_contributions(
    found: Sequence[Contribution],
    catalogs: Catalogs | None = None,
    path: str = "",
    *,
    columns: Mapping[str, Column] | None = None,
) -> Contributions:
    """Check names and inputs and put modules in order; see `find_contributions`."""
    modules = [m for m in found if isinstance(m, ScienceModule) and not m.is_shadow]
    shadows = [m for m in found if isinstance(m, ScienceModule) and m.is_shadow]
    filters = [one for one in found if isinstance(one, TopicFilter)]
    columns = provided_columns(catalogs) if columns is None else columns
    _check_once("science module", [(m.name, m.file) for m in (*modules, *shadows)])
    _check_shadows(modules, shadows)
    _check_once("topic", [(f.topic, f.file) for f in filters])
    outputs = [(c.name, m.file) for m in modules for c in m.outputs]
    _check_once("column", [*((c.name, "the broker itself") for c in columns.values()), *outputs])
    providers = {column.python_name: module for module in modules for column in module.outputs}
    for one in found:
        _check_inputs(one, columns, providers)
    return Contributions(
        tuple(_in_order(modules, providers)),
        tuple(sorted(filters, key=lambda chosen: chosen.topic)),
        path,
        tuple(sorted(shadows, key=lambda shadow: shadow.name)),
        columns,
    )


def _check_shadows(modules: Sequence[ScienceModule], shadows: Sequence[ScienceModule]) -> None:
    versions = {module.name: module.version for module in modules}
    for shadow in shadows:
        name = shadow.name.removesuffix(SHADOW)
        if name not in versions:
            raise ConfigError(f"{shadow.file}: there is no module {name} for it to run beside")
        if versions[name] == shadow.version:
            raise ConfigError(
                f"{shadow.file}: {name} in use has version {shadow.version} too; give another"
            )


def _check_once(what: str, names: Sequence[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for name, file in names:
        if name in seen:
            raise ConfigError(
                f"the {what} {name!r} is declared twice: in {seen[name]} and in {file}", name=name
            )
        seen[name] = file


def _check_inputs(
    one: Contribution, columns: Mapping[str, Column], providers: Mapping[str, Any]
) -> None:
    cutouts = {snake_case(name) for name in CUTOUT_NAMES}
    for parameter in one.parameters:
        name = parameter.name
        allowed = {LIGHT_CURVES: name == "history", CUTOUTS: name in cutouts, SERIES: True}
        if not allowed[parameter.form]:
            raise ConfigError(f"{one.file}: {name} cannot be had as {parameter.form}", name=name)
        if not (name in columns or name in providers or name in cutouts or name == "history"):
            raise ConfigError(
                f"{one.file}: no one provides the input {name!r} ({camel_case(name)}); it is no "
                "canonical column, no match with a defined catalogue, no output of a module",
                name=name,
            )


def _in_order(
    modules: Sequence[ScienceModule], providers: Mapping[str, ScienceModule]
) -> list[ScienceModule]:
    """Return modules after those they read from; by name where that is free."""
    waiting = {
        m.name: {providers[i].name for i in m.inputs if i in providers}
        for m in sorted(modules, key=lambda m: m.name)
    }
    by_name = {m.name: m for m in modules}
    ordered: list[ScienceModule] = []
    while waiting:
        ready = [name for name, needs in waiting.items() if not needs & waiting.keys()]
        if not ready:
            circle = _circle(waiting)
            files = " and ".join(dict.fromkeys(by_name[name].file for name in circle))
            raise ConfigError(
                f"science modules read each other's outputs in a circle: "
                f"{' → '.join([*circle, circle[0]])}, in {files}"
            )
        ordered += [by_name[name] for name in ready]
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}
    return ordered


def _circle(waiting: Mapping[str, set[str]]) -> list[str]:
    """Return one circle among modules that all wait for one another."""
    trail = [next(iter(waiting))]
    while True:
        following = min(waiting[trail[-1]] & waiting.keys())
        if following in trail:
            return trail[trail.index(following) :]
        trail.append(following)
