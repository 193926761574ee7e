"""A filter as one expression over columns, in the words of SQL, without any code.

    reliability >= 0.65 AND context_class IN ('hosted', 'hostless') AND NOT is_negative

It is read by the parser below, never by Python: there is nothing in it but columns, constants,
comparisons, arithmetic and five functions. Logic has three values, as in SQL: what is null is
neither true nor false, and an alert is chosen only where the whole is true.
"""

import difflib
import functools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.alerts.columns import Column, snake_case
from broker.errors import ConfigError

MAX_WORDS = 400
"""A longer expression is refused."""

MAX_DEPTH = 40

NUMBER, TEXT, TRUTH = "number", "text", "truth"

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<text>'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign><=|>=|<>|!=|[=<>+\-*/(),]))"
)
_WORDS = {"and", "or", "not", "in", "between", "is", "null", "true", "false"}

Values = tuple[NDArray[Any], NDArray[np.bool_]]
"""Values and whether each is known."""

Rule = Callable[[Mapping[str, Values]], Values]


@dataclass(frozen=True)
class Node:
    """A part of an expression: its kind, and how it is worked out."""

    kind: str
    rule: Rule


@dataclass(frozen=True)
class Token:
    """A word of an expression and where it stands."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Expression:
    """An expression that can be called as a filter's function; it can be sent to a process.

    Parameters
    ----------
    text : str
        As the user wrote it.
    inputs : tuple of str
        Names of its columns as parameters, in the order in which they are given to a call.
    kinds : tuple of str
        What each one is: number, text or truth.
    """

    text: str
    inputs: tuple[str, ...]
    kinds: tuple[str, ...]

    def __call__(self, *columns: pd.Series) -> pd.Series:
        """Return where the expression is true."""
        node = _compiled(self.text, self.inputs, self.kinds)
        given = {
            name: _values(series, kind)
            for name, series, kind in zip(self.inputs, columns, self.kinds, strict=True)
        }
        with np.errstate(all="ignore"):
            values, valid = node.rule(given)
        n = len(columns[0])
        return pd.Series(np.broadcast_to(values.astype(bool) & valid, (n,)).copy())


def read_expression(text: str, columns: Mapping[str, Column]) -> Expression:
    """Return a checked expression.

    Parameters
    ----------
    text : str
        What chooses an alert.
    columns : mapping of str to Column
        What it may use, by parameter name; columns with one value an alert.

    Raises
    ------
    ConfigError
        If it cannot be read, names a column that no one provides, or compares what cannot be
        compared; the message says where.
    """
    kinds = {name: _kind_of(column) for name, column in columns.items()}
    parser = _Parser(text, kinds)
    node = parser.whole()
    if node.kind != TRUTH:
        raise ConfigError(f"{text!r} is a {node.kind}; a filter is a comparison, true or false")
    if not parser.used:
        raise ConfigError(f"{text!r} reads no column: it would choose all alerts or none")
    used = tuple(parser.used)
    return Expression(text, used, tuple(kinds[name] for name in used))


@functools.cache
def _compiled(text: str, inputs: tuple[str, ...], kinds: tuple[str, ...]) -> Node:
    return _Parser(text, dict(zip(inputs, kinds, strict=True))).whole()


def _kind_of(column: Column) -> str:
    return {"string": TEXT, "binary": TEXT, "bool": TRUTH}.get(column.dtype, NUMBER)


def _values(series: pd.Series, kind: str) -> Values:
    if kind == NUMBER:
        numbers = series.to_numpy(np.float64)
        return numbers, ~np.isnan(numbers)
    known = series.notna().to_numpy(bool)
    if kind == TRUTH:
        return series.fillna(False).to_numpy(bool), known
    return series.to_numpy(object), known


class _Parser:
    """Reads an expression from left to right, a method a level of precedence."""

    def __init__(self, text: str, kinds: Mapping[str, str]) -> None:
        self._text, self._kinds = text, kinds
        self._tokens = _tokens(text)
        self._next = self._depth = 0
        self.used: dict[str, None] = {}

    def whole(self) -> Node:
        node = self._or()
        if self._peek().kind != "end":
            self._fail(f"does not belong there: {self._peek().text!r}")
        return node

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self, *wanted: str) -> bool:
        token = self._peek()
        if token.kind in ("name", "sign") and token.text.lower() in wanted:
            self._next += 1
            return True
        return False

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            self._fail(f"{wanted.upper()} is missing before {self._peek().text or 'the end'!r}")

    def _fail(self, what: str) -> NoReturn:
        at = self._peek().at
        raise ConfigError(f"at place {at + 1} of {self._text!r}: {what}", expression=self._text)

    def _or(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("there are too many parentheses within one another")
        node = self._and()
        while self._take("or"):
            node = self._both(node, self._and(), _or)
        self._depth -= 1
        return node

    def _and(self) -> Node:
        node = self._not()
        while self._take("and"):
            node = self._both(node, self._not(), _and)
        return node

    def _both(self, one: Node, other: Node, rule: Callable[[Values, Values], Values]) -> Node:
        for node in (one, other):
            if node.kind != TRUTH:
                self._fail(f"AND, OR and NOT join what is true or false, not a {node.kind}")
        return Node(TRUTH, lambda given: rule(one.rule(given), other.rule(given)))

    def _not(self) -> Node:
        count = 0
        while self._take("not"):
            count += 1
        node = self._comparison()
        if not count:
            return node
        return self._negated(self._both(node, node, lambda one, _: one), count % 2 == 1)

    @staticmethod
    def _negated(node: Node, is_negated: bool) -> Node:
        if not is_negated:
            return node

        def rule(given: Mapping[str, Values]) -> Values:
            values, valid = node.rule(given)
            return ~values.astype(bool), valid

        return Node(TRUTH, rule)

    def _comparison(self) -> Node:
        one = self._sum()
        sign = self._peek().text
        if self._peek().kind == "sign" and sign in _COMPARE:
            self._next += 1
            return self._compared(one, self._sum(), sign)
        if self._take("is"):
            is_not = self._take("not")
            self._need("null")
            return Node(TRUTH, lambda given: _null(one.rule(given), is_not))
        is_not = self._take("not")
        if self._take("between"):
            low = self._compared(one, self._sum(), ">=")
            self._need("and")
            node = self._both(low, self._compared(one, self._sum(), "<="), _and)
            return self._negated(node, is_not)
        if self._take("in"):
            return self._negated(self._one_of(one), is_not)
        if is_not:
            self._fail("after NOT comes IN or BETWEEN here")
        return one

    def _one_of(self, one: Node) -> Node:
        self._need("(")
        node = self._compared(one, self._sum(), "=")
        while self._take(","):
            node = self._both(node, self._compared(one, self._sum(), "="), _or)
        self._need(")")
        return node

    def _compared(self, one: Node, other: Node, sign: str) -> Node:
        if one.kind != other.kind:
            self._fail(f"a {one.kind} cannot be compared with a {other.kind}")
        if one.kind != NUMBER and sign not in ("=", "<>", "!="):
            self._fail(f"a {one.kind} is compared with = and <> only")
        compare = _COMPARE[sign]

        def rule(given: Mapping[str, Values]) -> Values:
            (left, one_valid), (right, other_valid) = one.rule(given), other.rule(given)
            return np.asarray(compare(left, right)), one_valid & other_valid

        return Node(TRUTH, rule)

    def _sum(self) -> Node:
        node = self._term()
        while self._peek().text in ("+", "-"):
            sign = self._peek().text
            self._next += 1
            node = self._number_of(_ARITHMETIC[sign], node, self._term())
        return node

    def _term(self) -> Node:
        node = self._factor()
        while self._peek().text in ("*", "/"):
            sign = self._peek().text
            self._next += 1
            node = self._number_of(_ARITHMETIC[sign], node, self._factor())
        return node

    def _number_of(self, function: Callable[..., Any], *nodes: Node) -> Node:
        for node in nodes:
            if node.kind != NUMBER:
                self._fail(f"arithmetic is for numbers, not for a {node.kind}")

        def rule(given: Mapping[str, Values]) -> Values:
            parts = [node.rule(given) for node in nodes]
            values = np.asarray(function(*(values for values, _ in parts)))
            valid = functools.reduce(operator.and_, (valid for _, valid in parts))
            return values, valid & np.isfinite(values)

        return Node(NUMBER, rule)

    def _factor(self) -> Node:
        signs = 0
        while self._take("-"):
            signs += 1
        node = self._atom()
        return self._number_of(np.negative, node) if signs % 2 else node

    def _atom(self) -> Node:
        token = self._peek()
        if self._take("("):
            node = self._or()
            self._need(")")
            return node
        if token.kind == "end":
            self._fail("something is missing at the end")
        self._next += 1
        if token.kind == "number":
            return _constant(NUMBER, float(token.text))
        if token.kind == "text":
            return _constant(TEXT, token.text[1:-1].replace("''", "'"))
        if token.kind == "name" and token.text.lower() in ("true", "false"):
            return _constant(TRUTH, token.text.lower() == "true")
        if token.kind == "name" and self._take("("):
            return self._call(token)
        if token.kind == "name" and token.text.lower() not in _WORDS:
            return self._column(token)
        self._next -= 1
        return self._fail(f"a column or a value is missing before {token.text!r}")

    def _call(self, token: Token) -> Node:
        if token.text.lower() not in _FUNCTIONS:
            self._fail(f"there is no function {token.text}; there are {', '.join(_FUNCTIONS)}")
        function, n_arguments = _FUNCTIONS[token.text.lower()]
        arguments = [self._sum()]
        while self._take(","):
            arguments.append(self._sum())
        self._need(")")
        if len(arguments) != n_arguments:
            self._fail(f"{token.text} takes {n_arguments} values, not {len(arguments)}")
        return self._number_of(function, *arguments)

    def _column(self, token: Token) -> Node:
        name = snake_case(token.text)
        if name not in self._kinds:
            near = difflib.get_close_matches(name, self._kinds, 3, 0.6)
            hint = f"; do you mean {' or '.join(near)}?" if near else ""
            self._next -= 1
            self._fail(f"there is no column {token.text}{hint}")
        self.used[name] = None
        return Node(self._kinds[name], lambda given: given[name])


def _tokens(text: str) -> list[Token]:
    tokens, at = [], 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if not found:
            raise ConfigError(
                f"at place {at + 1} of {text!r}: {text[at:].strip()[:10]!r} cannot be read; text "
                "stands in single quotes",
                expression=text,
            )
        kind = str(found.lastgroup)
        tokens.append(Token(kind, found[kind], found.start(kind)))
        at = found.end()
    if len(tokens) > MAX_WORDS:
        raise ConfigError(f"the expression has {len(tokens)} words; at most {MAX_WORDS}")
    return [*tokens, Token("end", "", end)]


def _constant(kind: str, value: Any) -> Node:
    values, known = np.array(value, object if kind == TEXT else None), np.array(True)
    return Node(kind, lambda _: (values, known))


def _and(one: Values, other: Values) -> Values:
    (a, a_valid), (b, b_valid) = one, other
    is_false = (a_valid & ~a.astype(bool)) | (b_valid & ~b.astype(bool))
    return a.astype(bool) & b.astype(bool) & ~is_false, (a_valid & b_valid) | is_false


def _or(one: Values, other: Values) -> Values:
    (a, a_valid), (b, b_valid) = one, other
    is_true = (a_valid & a.astype(bool)) | (b_valid & b.astype(bool))
    return is_true, (a_valid & b_valid) | is_true


def _null(of: Values, is_not: bool) -> Values:
    _, valid = of
    return (valid if is_not else ~valid), np.ones_like(valid)


_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
_FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int]] = {
    "abs": (np.abs, 1),
    "sqrt": (np.sqrt, 1),
    "log10": (np.log10, 1),
    "least": (np.minimum, 2),
    "greatest": (np.maximum, 2),
}
