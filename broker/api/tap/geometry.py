"""The geometry of ADQL: shapes that are written in a query, and what is asked of them.

No column holds a shape, so shapes are known when a query is read, and a question about them
becomes a number: a distance, or whether a place is inside. Places are ICRS, angles degrees.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from broker.api.errors import ApiError
from broker.catalog.regions import Region, polygon
from broker.errors import AlertError

DISTANCE = "adql_distance"
"""The function of DuckDB that gives the angle between two places. [deg]"""

_FRAMES = ("", "ICRS", "ICRS GEOCENTER", "ICRS BARYCENTER", "UNKNOWNFRAME")


@dataclass(frozen=True)
class Point:
    """A place: expressions of right ascension and declination. [deg]"""

    ra: exp.Expression
    dec: exp.Expression


@dataclass(frozen=True)
class Circle:
    """A circle around a place. [deg]"""

    centre: Point
    radius: exp.Expression


@dataclass(frozen=True)
class Polygon:
    """A polygon of numbers, its sides great circles. [deg]"""

    ra: tuple[float, ...]
    dec: tuple[float, ...]

    def region(self) -> Region:
        """Return it as a part of the sky; ApiError if it is none."""
        try:
            return polygon(self.ra, self.dec)
        except AlertError as error:
            raise ApiError(400, error.message) from error


Shape = Point | Circle | Polygon


def name_of(node: exp.Expression) -> str:
    """Return the name of a function in capitals; empty for what is none."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).upper()
    return "CONTAINS" if isinstance(node, exp.Contains) else ""


def arguments(node: exp.Expression) -> list[exp.Expression]:
    """Return the arguments of a function."""
    if isinstance(node, exp.Contains):
        return [one for one in (node.this, node.expression) if one is not None]
    return list(node.expressions)


def number(node: exp.Expression) -> float | int | None:
    """Return the value of an expression of numbers alone; None for others."""
    if isinstance(node, exp.Paren):
        return number(node.this)
    if isinstance(node, exp.Neg):
        inner = number(node.this)
        return None if inner is None else -inner
    if isinstance(node, exp.Literal) and not node.is_string:
        text = node.name
        return int(text) if text.isdigit() else float(text)
    if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
        left, right = number(node.this), number(node.expression)
        if left is None or right is None:
            return None
        if isinstance(node, exp.Div):
            whole = isinstance(left, int) and isinstance(right, int)
            return None if right == 0 else int(left / right) if whole else left / right
        return (
            left + right
            if isinstance(node, exp.Add)
            else left - right
            if isinstance(node, exp.Sub)
            else left * right
        )
    return None


def shape_of(node: exp.Expression) -> Shape:
    """Return the shape that a function makes.

    Raises
    ------
    ApiError
        If it makes none, or one of another frame than ICRS.
    """
    name, found = name_of(node), arguments(node)
    if found and isinstance(found[0], exp.Literal) and found[0].is_string:
        if found[0].name.upper().strip() not in _FRAMES:
            raise ApiError(400, f"places are ICRS, not {found[0].name[:40]!r}", ("'ICRS'",))
        found = found[1:]
    if name == "CENTROID" and len(found) == 1:
        return _centre(found[0])
    if name == "POINT" and len(found) == 2:
        return Point(found[0], found[1])
    if name == "CIRCLE" and len(found) == 2:
        return Circle(_point(found[0]), found[1])
    if name == "CIRCLE" and len(found) == 3:
        return Circle(Point(found[0], found[1]), found[2])
    if name == "BOX" and len(found) in (3, 4):
        return _box(found)
    if name == "POLYGON" and len(found) >= 3:
        return _polygon(found)
    words = f"{name}(…) has {len(found)} arguments" if name else f"{node.sql()[:60]!r} is no shape"
    raise ApiError(400, words, _SHAPES)


_SHAPES = (
    "POINT(ra, dec)",
    "CIRCLE(ra, dec, radius)",
    "CIRCLE(POINT(ra, dec), radius)",
    "BOX(ra, dec, width, height)",
    "POLYGON(ra, dec, ra, dec, ra, dec, …)",
)


def _point(node: exp.Expression) -> Point:
    shape = shape_of(node)
    if not isinstance(shape, Point):
        raise ApiError(400, f"a POINT must stand where {node.sql()[:60]!r} does", _SHAPES[:1])
    return shape


def _centre(node: exp.Expression) -> Point:
    shape = shape_of(node)
    if isinstance(shape, Polygon):
        raise ApiError(400, "of a POLYGON or BOX no CENTROID is known", ("CIRCLE", "POINT"))
    return shape.centre if isinstance(shape, Circle) else shape


def _numbers(nodes: list[exp.Expression]) -> list[float]:
    found = [number(node) for node in nodes]
    known = [float(one) for one in found if one is not None]
    if len(known) != len(nodes):
        raise ApiError(400, "the corners of a BOX or POLYGON are numbers, not columns")
    return known


def _polygon(nodes: list[exp.Expression]) -> Polygon:
    if name_of(nodes[0]) == "POINT":
        points = [_point(node) for node in nodes]
        nodes = [one for point in points for one in (point.ra, point.dec)]
    values = _numbers(nodes)
    if len(values) % 2:
        raise ApiError(400, "the corners of a POLYGON are pairs of numbers", _SHAPES[-1:])
    return Polygon(tuple(one % 360.0 for one in values[::2]), tuple(values[1::2]))


def _box(nodes: list[exp.Expression]) -> Polygon:
    """Return the polygon of the four corners, as ADQL 2.1 defines a box."""
    if len(nodes) == 3:
        point = _point(nodes[0])
        nodes = [point.ra, point.dec, *nodes[1:]]
    ra, dec, width, height = _numbers(nodes)
    east, west, north, south = ra + width / 2, ra - width / 2, dec + height / 2, dec - height / 2
    corners = [one % 360.0 for one in (east, west, west, east)]
    return Polygon(tuple(corners), (north, north, south, south))


def without_geometry(tree: exp.Expression, regions: dict[str, Region]) -> None:
    """Put numbers in the place of all that is asked of shapes.

    Parameters
    ----------
    tree : Expression
        A query; it is changed.
    regions : dict of str to Region
        Functions `name(ra, dec)` that the query then needs are added.
    """
    for node in reversed(list(tree.find_all(exp.Anonymous, exp.Contains))):
        made = _MAKERS.get(name_of(node))
        if made is not None:
            node.replace(made(arguments(node), regions))
    for node in tree.find_all(exp.Anonymous):
        if name_of(node) in GEOMETRY:
            words = f"a shape cannot stand here: {node.sql()[:60]}; ask for its coordinates"
            raise ApiError(400, words, sorted(_MAKERS))


def distance(one: Point, other: Point) -> exp.Expression:
    """Return the angle between two places. [deg]"""
    places = [part.copy() for part in (one.ra, one.dec, other.ra, other.dec)]
    return _called(DISTANCE, *places)


def _called(name: str, *args: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=list(args))


def _pair(args: list[exp.Expression], name: str) -> tuple[Shape, Shape]:
    if len(args) != 2:
        raise ApiError(400, f"{name} has two arguments, not {len(args)}")
    return shape_of(args[0]), shape_of(args[1])


def _truth(condition: exp.Expression) -> exp.Expression:
    """Return 1 or 0; null where it is not known."""
    return exp.Cast(this=exp.Paren(this=condition), to=exp.DataType.build("INT"))


def _contains(args: list[exp.Expression], regions: dict[str, Region]) -> exp.Expression:
    inner, outer = _pair(args, "CONTAINS")
    return _inside(inner, outer, regions)


def _inside(inner: Shape, outer: Shape, regions: dict[str, Region]) -> exp.Expression:
    if isinstance(inner, Point) and isinstance(outer, Circle):
        away = distance(inner, outer.centre)
        return _truth(exp.LTE(this=away, expression=exp.Paren(this=outer.radius.copy())))
    if isinstance(inner, Point) and isinstance(outer, Polygon):
        name = f"in_region_{len(regions)}"
        regions[name] = outer.region()
        return _truth(_called(name, inner.ra.copy(), inner.dec.copy()))
    if isinstance(inner, Circle) and isinstance(outer, Circle):
        reach = exp.Add(this=distance(inner.centre, outer.centre), expression=_of(inner))
        return _truth(exp.LTE(this=reach, expression=_of(outer)))
    raise ApiError(400, "CONTAINS asks for a POINT, or a CIRCLE in a CIRCLE", _SHAPES)


def _of(circle: Circle) -> exp.Expression:
    return exp.Paren(this=circle.radius.copy())


def _intersects(args: list[exp.Expression], regions: dict[str, Region]) -> exp.Expression:
    one, other = _pair(args, "INTERSECTS")
    if isinstance(other, Point):
        one, other = other, one
    if isinstance(one, Point):
        return _inside(one, other, regions)
    if isinstance(one, Circle) and isinstance(other, Circle):
        away = distance(one.centre, other.centre)
        both = exp.Paren(this=exp.Add(this=_of(one), expression=_of(other)))
        return _truth(exp.LTE(this=away, expression=both))
    raise ApiError(400, "INTERSECTS asks for a POINT and a shape, or two CIRCLEs", _SHAPES)


def _distance(args: list[exp.Expression], _: dict[str, Region]) -> exp.Expression:
    if len(args) == 4:
        return distance(Point(args[0], args[1]), Point(args[2], args[3]))
    if len(args) != 2:
        raise ApiError(400, "DISTANCE is asked of two POINTs or four numbers")
    return distance(_point(args[0]), _point(args[1]))


def _area(args: list[exp.Expression], _: dict[str, Region]) -> exp.Expression:
    shape = shape_of(args[0]) if len(args) == 1 else None
    if isinstance(shape, Point):
        return exp.Literal.number(0)
    if not isinstance(shape, Circle):
        raise ApiError(400, "AREA is known of one CIRCLE", ("AREA(CIRCLE(ra, dec, radius))",))
    cosine = exp.Cos(this=exp.Radians(this=_of(shape)))
    height = exp.Paren(this=exp.Sub(this=exp.Literal.number(1), expression=cosine))
    return exp.Paren(
        this=exp.Mul(this=exp.Literal.number(repr(360.0 * 180.0 / math.pi)), expression=height)
    )


def _first(args: list[exp.Expression], _: dict[str, Region]) -> exp.Expression:
    return _centre(args[0]).ra.copy() if len(args) == 1 else _one_point()


def _second(args: list[exp.Expression], _: dict[str, Region]) -> exp.Expression:
    return _centre(args[0]).dec.copy() if len(args) == 1 else _one_point()


def _one_point() -> exp.Expression:
    raise ApiError(400, "a coordinate is asked of one POINT", _SHAPES[:1])


_MAKERS: dict[str, Callable[[list[exp.Expression], dict[str, Region]], exp.Expression]] = {
    "CONTAINS": _contains,
    "INTERSECTS": _intersects,
    "DISTANCE": _distance,
    "AREA": _area,
    "COORD1": _first,
    "COORD2": _second,
}

GEOMETRY = frozenset({*_MAKERS, "POINT", "CIRCLE", "BOX", "POLYGON", "CENTROID"})
"""Names of all functions of this kind."""
