"""What a science module and a topic filter declare.

A declaration is checked when the file is imported: a wrong one is a `ConfigError` before any
alert is touched.
"""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import pandas as pd

from broker.alerts.columns import ARROW_TYPES, Column, camel_case, snake_case
from broker.errors import ConfigError
from broker.science.cutouts import Cutouts
from broker.science.expression import Expression
from broker.science.light_curves import LightCurves

SERIES, LIGHT_CURVES, CUTOUTS = "series", "light-curves", "cutouts"
"""The forms in which an input arrives."""

MODEL = "model"
"""The parameter that receives the result of a module's `setup`."""

_NAME = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
_TOPIC = re.compile(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")


SHADOW = "@next"
"""End of the name of a version that runs beside the one in use: of its folder, and of its own."""


@dataclass(frozen=True)
class Parameter:
    """One input: the snake_case name of a column and the form it arrives in."""

    name: str
    form: str = SERIES


@dataclass(frozen=True)
class Reference:
    """A function of a contribution by its place: what crosses processes in its stead.

    Parameters
    ----------
    module : str
        Name of the Python module that declares the contribution.
    attribute : str
        Its name in there.
    part : str
        `function` or `setup`.
    path : str
        The modules folder, if it is not the installed package.
    """

    module: str
    attribute: str
    part: str
    path: str = ""

    def __call__(self, *columns: Any, **settings: Any) -> Any:
        """Find the function and call it."""
        return self.find()(*columns, **settings)

    def find(self) -> Any:
        """Return the function; its file is imported when that is first asked for."""
        if self.path:
            from broker.science.registry import open_folder

            open_folder(self.path)
        found: Any = importlib.import_module(self.module)
        for name in self.attribute.split("."):
            found = getattr(found, name)
        return getattr(found, self.part)


@dataclass(frozen=True)
class Contribution:
    """What a science module and a topic filter have in common."""

    function: Callable[..., Any] = field(repr=False)
    parameters: tuple[Parameter, ...]
    setup: Callable[[], Any] | None = field(default=None, kw_only=True, repr=False)
    takes_model: bool = field(default=False, kw_only=True)
    read_only: bool = field(default=True, kw_only=True)
    """Whether inputs arrive as arrays that cannot be written to."""
    doc: str = field(default="", kw_only=True, repr=False)
    """What its docstring says."""
    file: str = field(default="", kw_only=True)
    """The file that declares it."""
    path: str = field(default="", kw_only=True, repr=False)
    """The modules folder it was found in; empty for the installed package."""
    attribute: str = field(default="", kw_only=True, repr=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the columns it reads, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def title(self) -> str:
        """First line of its docstring."""
        return self.doc.partition("\n")[0]

    def __call__(self, *columns: Any, **settings: Any) -> Any:
        """Run the function on one batch."""
        return self.function(*columns, **settings)

    def __reduce__(self) -> tuple[Any, ...]:
        # A function under a decorator cannot be pickled by its name, which now is this object's:
        # its place is sent, and it is looked up there when it is first called.
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for part in ("function", "setup"):
            value = values[part]
            if value is not None and not isinstance(value, Reference | Expression):
                where = self.attribute or getattr(self.function, "__qualname__", "")
                module = getattr(self.function, "__module__", "")
                values[part] = Reference(module, where, part, self.path)
        return (_rebuild, (type(self), values))


def _rebuild(kind: type[Contribution], values: dict[str, Any]) -> Contribution:
    return kind(**values)


@dataclass(frozen=True)
class ScienceModule(Contribution):
    """A pandas UDF with its declaration: it adds columns to a batch of alerts.

    Calling it calls the function, so it can be run in a notebook or a test as it is.
    """

    name: str = ""
    version: str = ""
    outputs: tuple[Column, ...] = ()

    @property
    def label(self) -> str:
        """Name and version, `rise_rate@1.0.0`: what its outputs are kept under."""
        return f"{self.name.removesuffix(SHADOW)}@{self.version}"

    @property
    def is_shadow(self) -> bool:
        """Whether it is a version that is computed and stored, but neither seen nor published."""
        return self.name.endswith(SHADOW)

    @property
    def qualified(self) -> dict[str, Column]:
        """Its outputs under the names they are kept by, `rise_rate@1.0.0:riseRate`."""
        return {f"{self.label}:{column.name}": column for column in self.outputs}


@dataclass(frozen=True)
class TopicFilter(Contribution):
    """A choice of alerts that makes a public topic.

    Parameters
    ----------
    topic : str
        The topic's name: lower-case words with dashes.
    max_pass_fraction : float
        Of a night's alerts it may choose at most this part, between 0 and 1.
    """

    topic: str = ""
    max_pass_fraction: float = 1.0

    @property
    def name(self) -> str:
        """The topic's name, by which it is also quarantined."""
        return self.topic


def science_module(
    *,
    version: str,
    outputs: tuple[Column, ...],
    name: str = "",
    setup: Callable[[], Any] | None = None,
) -> Callable[[Callable[..., Any]], ScienceModule]:
    """Declare a function on pandas Series as a science module.

    Parameters
    ----------
    version : str
        Three numbers with dots; raise it with every change of the results.
    outputs : tuple of Column
        What it adds, by wire names (camelCase). All of them are nullable.
    name : str
        Its name; default the function's.
    setup : callable, optional
        Runs once a process, without arguments; its result comes as the keyword `model`.

    Raises
    ------
    ConfigError
        If a name, version, type or parameter is not allowed.
    """

    def declare(function: Callable[..., Any]) -> ScienceModule:
        parameters, takes_model = read_parameters(function)
        module = ScienceModule(
            function,
            parameters,
            setup=setup,
            takes_model=takes_model,
            doc=inspect.getdoc(function) or "",
            file=_file_of(function),
            name=name or function.__name__,
            version=version,
            outputs=tuple(outputs),
        )
        check_declaration(module)
        return module

    return declare


def topic_filter(
    *, topic: str, max_pass_fraction: float, setup: Callable[[], Any] | None = None
) -> Callable[[Callable[..., pd.Series]], TopicFilter]:
    """Declare a function from pandas Series to booleans as the filter of a topic.

    Its docstring says for whom the topic is. A null never passes.

    Parameters
    ----------
    topic : str
        The topic's name: lower-case words with dashes.
    max_pass_fraction : float
        Of a night's alerts it may choose at most this part, between 0 and 1.
    setup : callable, optional
        Runs once a process, without arguments; its result comes as the keyword `model`.

    Raises
    ------
    ConfigError
        If the topic's name, the fraction or a parameter is not allowed.
    """

    def declare(function: Callable[..., pd.Series]) -> TopicFilter:
        parameters, takes_model = read_parameters(function)
        chosen = TopicFilter(
            function,
            parameters,
            setup=setup,
            takes_model=takes_model,
            doc=inspect.getdoc(function) or "",
            file=_file_of(function),
            topic=topic,
            max_pass_fraction=max_pass_fraction,
        )
        check_declaration(chosen)
        return chosen

    return declare


def read_parameters(function: Callable[..., Any]) -> tuple[tuple[Parameter, ...], bool]:
    """Return a function's inputs, and whether it takes a model.

    Raises
    ------
    ConfigError
        If it has `*args` or `**kwargs`, or a keyword-only parameter without a default.
    """
    try:
        hints = get_type_hints(function)
    except NameError:  # an annotation that is only imported for type checkers
        hints = {}
    inputs: list[Parameter] = []
    takes_model = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            _refuse(function, f"has *{parameter.name}; name each input as a parameter")
        if parameter.name == MODEL:
            takes_model = True
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            inputs.append(Parameter(parameter.name, _form(hints.get(parameter.name))))
        elif parameter.default is parameter.empty:
            _refuse(function, f"has the setting {parameter.name} without a default")
    return tuple(inputs), takes_model


def _form(annotation: Any) -> str:
    if annotation is LightCurves:
        return LIGHT_CURVES
    return CUTOUTS if annotation is Cutouts else SERIES


def check_declaration(contribution: Contribution) -> None:
    """Raise ConfigError if a declaration is not allowed; the message says what is."""
    function = contribution.function
    if not contribution.parameters:
        _refuse(function, "has no inputs; its positional parameters name the columns it reads")
    if contribution.takes_model != (contribution.setup is not None):
        _refuse(function, "needs both setup= and a parameter named model, or neither")
    if isinstance(contribution, ScienceModule):
        _check_module(contribution)
    if isinstance(contribution, TopicFilter):
        if not _TOPIC.match(contribution.topic):
            _refuse(function, f"has topic {contribution.topic!r}; use lower-case words and dashes")
        if not 0.0 < contribution.max_pass_fraction <= 1.0:
            _refuse(function, "needs a max_pass_fraction above 0 and at most 1")


def _check_module(module: ScienceModule) -> None:
    if not _NAME.match(module.name):
        _refuse(module.function, f"is named {module.name!r}; use snake_case")
    if not _VERSION.match(module.version):
        _refuse(module.function, f"has version {module.version!r}; use three numbers, as 1.0.0")
    if not module.outputs:
        _refuse(module.function, "declares no outputs")
    names = [column.name for column in module.outputs]
    for column in module.outputs:
        if column.dtype not in ARROW_TYPES:
            _refuse(module.function, f"{column.name}: {column.dtype} is none of {[*ARROW_TYPES]}")
        if not column.name.isalnum() or camel_case(snake_case(column.name)) != column.name:
            _refuse(module.function, f"output {column.name!r} is not in camelCase")
        if names.count(column.name) > 1:
            _refuse(module.function, f"declares {column.name} twice")


def _file_of(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else ""


def _refuse(function: Callable[..., Any], what: str) -> None:
    name = getattr(function, "__name__", str(function))
    raise ConfigError(f"{name} in {_file_of(function)} {what}", function=name)
