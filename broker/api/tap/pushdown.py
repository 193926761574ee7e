"""What a query's WHERE says of a table's rows before they are read: where, when, which object.

All of it is a hint: rows that are read in vain are dropped by the query itself, so whatever is
not understood here is left out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlglot import exp

from broker.api.errors import ApiError
from broker.api.tap.geometry import (
    Circle,
    Point,
    Polygon,
    Shape,
    arguments,
    name_of,
    number,
    shape_of,
)
from broker.api.wanted import cone_region
from broker.catalog.regions import Region
from broker.units import ARCSEC_PER_DEG

_WIDEST_DEG = 1.5
_MARGIN_ARCSEC = 0.01
"""The query itself has the last word on the edge."""

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Limits:
    """What rows have that can be in an answer.

    Parameters
    ----------
    region : Region, optional
        Where they are.
    mjd : tuple of float or None
        From, to. [d]
    nights : tuple of str or None
        From, to.
    """

    region: Region | None = None
    mjd: Interval = (None, None)
    nights: tuple[str | None, str | None] = (None, None)


def limits_of(table: exp.Table, columns: frozenset[str]) -> Limits:
    """Return what the query around a table says of its rows."""
    select = table.parent_select
    if not isinstance(select, exp.Select) or not {"ra", "dec"} <= columns:
        return Limits()
    where = select.args.get("where")
    if where is None or _is_hidden(table, select):
        return Limits()
    alone = len(list(_sources(select))) == 1
    name = (table.alias or table.name).lower()

    def is_column(node: exp.Expression, column: str) -> bool:
        if not isinstance(node, exp.Column) or node.name.lower() != column.lower():
            return False
        return node.table.lower() == name or (alone and not node.table)

    found = _Found(is_column)
    for condition in _conditions(where.this):
        found.take(condition)
    with_time = "midpointMjdTai" in columns
    return Limits(
        found.region,
        (found.low, found.high) if with_time else (None, None),
        (found.first, found.last) if with_time else (None, None),
    )


def _sources(select: exp.Select) -> Iterator[exp.Expression]:
    # The key of FROM in a tree has an underscore in newer releases.
    begin = select.args.get("from_") or select.args.get("from")
    if begin is not None:
        yield begin.this
    for join in select.args.get("joins") or ():
        yield join.this


def _is_hidden(table: exp.Table, select: exp.Select) -> bool:
    """Return whether a table is not directly one of those that a SELECT reads."""
    return not any(source is table for source in _sources(select))


def _conditions(node: exp.Expression) -> Iterator[exp.Expression]:
    """Yield what must hold together."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, exp.And):
            waiting += [one.this, one.expression]
        elif isinstance(one, exp.Paren):
            waiting.append(one.this)
        else:
            yield one


_TURNED = {exp.LT: exp.GT, exp.GT: exp.LT, exp.LTE: exp.GTE, exp.GTE: exp.LTE, exp.EQ: exp.EQ}


class _Found:
    """Limits, narrower with each condition."""

    def __init__(self, is_column: Callable[[exp.Expression, str], bool]) -> None:
        self._is = is_column
        self.region: Region | None = None
        self.low: float | None = None
        self.high: float | None = None
        self.first: str | None = None
        self.last: str | None = None

    def take(self, node: exp.Expression) -> None:
        """Take one condition."""
        if isinstance(node, exp.Between):
            self._compare(exp.GTE, node.this, node.args["low"])
            self._compare(exp.LTE, node.this, node.args["high"])
        elif type(node) in _TURNED:
            self._compare(type(node), node.this, node.expression)
            self._compare(_TURNED[type(node)], node.expression, node.this)

    def _compare(
        self, kind: type[exp.Expression], left: exp.Expression, right: exp.Expression
    ) -> None:
        value = number(right)
        name = name_of(left)
        if self._is(left, "midpointMjdTai") and value is not None:
            self._narrow(kind, float(value))
        elif self._is(left, "night") and isinstance(right, exp.Literal) and right.is_string:
            self._narrow_nights(kind, right.name)
        elif name in ("CONTAINS", "INTERSECTS") and kind is exp.EQ and value == 1:
            self._inside(arguments(left))
        elif name == "DISTANCE" and kind in (exp.LT, exp.LTE) and value is not None:
            self._near(arguments(left), float(value))

    def _narrow(self, kind: type[exp.Expression], value: float) -> None:
        if kind in (exp.GT, exp.GTE, exp.EQ):
            self.low = value if self.low is None else max(self.low, value)
        if kind in (exp.LT, exp.LTE, exp.EQ):
            self.high = value if self.high is None else min(self.high, value)

    def _narrow_nights(self, kind: type[exp.Expression], value: str) -> None:
        if kind in (exp.GT, exp.GTE, exp.EQ):
            self.first = value if self.first is None else max(self.first, value)
        if kind in (exp.LT, exp.LTE, exp.EQ):
            self.last = value if self.last is None else min(self.last, value)

    def _inside(self, args: list[exp.Expression]) -> None:
        shapes = _shapes(args)
        if len(shapes) != 2:
            return
        for one, other in (shapes, shapes[::-1]):
            if isinstance(one, Point) and self._is_place(one):
                if isinstance(other, Circle):
                    self._circle(other.centre, number(other.radius))
                elif isinstance(other, Polygon):
                    self.region = self.region or other.region()
                return

    def _near(self, args: list[exp.Expression], radius: float) -> None:
        if len(args) == 4:
            places: list[Shape] = [Point(args[0], args[1]), Point(args[2], args[3])]
        else:
            places = _shapes(args)
        if len(places) != 2:
            return
        for one, other in (places, places[::-1]):
            if isinstance(one, Point) and isinstance(other, Point) and self._is_place(one):
                self._circle(other, radius)

    def _is_place(self, point: Point) -> bool:
        return self._is(point.ra, "ra") and self._is(point.dec, "dec")

    def _circle(self, centre: Point, radius: float | None) -> None:
        ra, dec = number(centre.ra), number(centre.dec)
        if ra is None or dec is None or radius is None or self.region is not None:
            return
        if math.isfinite(ra) and abs(dec) <= 90.0 and 0.0 <= radius <= _WIDEST_DEG:
            reach = radius * ARCSEC_PER_DEG + _MARGIN_ARCSEC
            self.region = cone_region(float(ra) % 360.0, float(dec), reach)


def _shapes(args: list[exp.Expression]) -> list[Shape]:
    """Return the shapes of arguments; none if one of them is none: the rewriting says why."""
    try:
        return [shape_of(node) for node in args]
    except ApiError:
        return []
