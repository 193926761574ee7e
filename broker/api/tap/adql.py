"""ADQL read, checked and rewritten for DuckDB: one SELECT, of known tables and functions."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlglot import exp
from sqlglot import parse as parsed
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Tokenizer as PlainTokenizer
from sqlglot.tokens import TokenType

from broker.api.errors import ApiError
from broker.api.tap.geometry import GEOMETRY, without_geometry
from broker.api.tap.pushdown import Limits, limits_of
from broker.catalog.regions import Region

MOST_CHARACTERS = 16_000
_MOST_DEEP = 60

MOST_TABLES = 30
"""That a query may join and read, with repetitions."""


class Adql(Dialect):
    """Plain SQL with `TOP` behind `SELECT`."""

    class Tokenizer(PlainTokenizer):  # noqa: D106  # the name by which a dialect has it
        KEYWORDS = {**PlainTokenizer.KEYWORDS, "TOP": TokenType.TOP}  # noqa: RUF012


@dataclass(frozen=True)
class Reference:
    """A table where a query names it.

    Parameters
    ----------
    view : str
        What it is called in the rewritten query.
    table : str
        Its name, as `broker.alerts`.
    limits : Limits
        Rows outside of them cannot be in the answer.
    """

    view: str
    table: str
    limits: Limits


@dataclass(frozen=True)
class Statement:
    """A query that may run.

    Parameters
    ----------
    sql : str
        For DuckDB.
    references : tuple of Reference
        Tables that it reads.
    regions : mapping of str to Region
        Parts of the sky that it asks for by the name of a function.
    plain : frozenset of str
        Columns of the answer that are those of a table as they are; `*` is all.
    """

    sql: str
    references: tuple[Reference, ...]
    regions: Mapping[str, Region]
    plain: frozenset[str]


_QUERIES = (exp.Select, exp.Union, exp.Except, exp.Intersect)
_NODES: tuple[type[exp.Expression], ...] = (
    *_QUERIES, exp.Subquery, exp.With, exp.CTE, exp.From, exp.Join, exp.Where, exp.Group,
    exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Distinct, exp.Alias, exp.Column,
    exp.Identifier, exp.Star, exp.Table, exp.TableAlias, exp.Literal, exp.Null, exp.Boolean,
    exp.Paren, exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is,
    exp.In, exp.Between, exp.Like, exp.ILike, exp.Escape, exp.Exists, exp.Add, exp.Sub, exp.Mul,
    exp.Div, exp.Neg, exp.DPipe, exp.Mod, exp.Case, exp.If, exp.Cast, exp.DataType,
    exp.DataTypeParam, exp.Coalesce, exp.Nullif, exp.Abs, exp.Ceil, exp.Floor, exp.Round,
    exp.Trunc, exp.Exp, exp.Ln, exp.Log, exp.Sqrt, exp.Pow, exp.Pi, exp.Degrees, exp.Radians,
    exp.Sin, exp.Cos, exp.Tan, exp.Asin, exp.Acos, exp.Atan, exp.Atan2, exp.Cot, exp.Lower,
    exp.Upper, exp.Min, exp.Max, exp.Avg, exp.Sum, exp.Count, exp.Stddev, exp.Variance, exp.Median,
    exp.Rand, exp.Contains,
)  # fmt: skip
"""All that a query may be made of; whatever else can be read is refused."""

_TYPES = frozenset(
    f"{kind}" for kind in ("INT", "SMALLINT", "BIGINT", "FLOAT", "DOUBLE", "CHAR", "VARCHAR")
)
FUNCTIONS = (
    "ABS, ACOS, ASIN, ATAN, ATAN2, AVG, CAST, CEILING, COALESCE, COS, COT, COUNT, DEGREES, EXP, "
    "FLOOR, LOG, LOG10, LOWER, MAX, MEDIAN, MIN, MOD, NULLIF, PI, POWER, RADIANS, RAND, ROUND, "
    "SIN, SQRT, STDDEV, SUM, TAN, TRUNCATE, UPPER, VARIANCE; POINT, CIRCLE, BOX, POLYGON in "
    "CONTAINS, INTERSECTS, DISTANCE, AREA, CENTROID, COORD1, COORD2"
)


def statement_of(query: str, *, tables: Mapping[str, frozenset[str]], most: int) -> Statement:
    """Return a query that may run, made from ADQL.

    Parameters
    ----------
    query : str
        ADQL.
    tables : mapping of str to frozenset of str
        Tables that may be asked, as `broker.alerts`, and their columns.
    most : int
        Rows that are read of the answer.

    Raises
    ------
    ApiError
        If it is no query, or one with something that is not allowed.
    """
    try:
        tree = _read(query)
        regions: dict[str, Region] = {}
        _check_size(tree)
        references = tuple(_named(tree, tables))
        _check(tree)
        _name_columns(tree)
        without_geometry(tree, regions)
        plain = _plain_columns(tree)
        _limit(tree, most)
        sql = tree.sql(dialect="duckdb", identify=True, comments=False)
    except RecursionError as error:
        raise ApiError(400, "the query is nested too deeply") from error
    except SqlglotError as error:  # what is read and cannot be said to DuckDB
        raise ApiError(400, f"the query cannot be understood: {_line(error)}") from error
    return Statement(sql, references, regions, plain)


def _read(query: str) -> exp.Expression:
    if len(query) > MOST_CHARACTERS:
        raise ApiError(400, f"the query has more than {MOST_CHARACTERS} characters")
    if not query.strip():
        raise ApiError(400, "there is no query", ("QUERY=SELECT TOP 10 * FROM broker.objects",))
    depth = deepest = 0
    for sign in query:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    if deepest > _MOST_DEEP:
        raise ApiError(400, f"the query has more than {_MOST_DEEP} brackets in each other")
    try:
        found = [one for one in parsed(query, read=Adql) if one is not None]
    except SqlglotError as error:
        raise ApiError(400, f"this is no ADQL: {_line(error)}") from error
    if len(found) != 1 or not isinstance(found[0], _QUERIES):
        raise ApiError(400, "one SELECT is answered, and nothing else")
    tree: exp.Expression = found[0]
    return tree


def _line(error: Exception) -> str:
    """Return what an error says in its first line, without colours of a terminal."""
    return re.sub(r"\x1b\[\d*m", "", str(error)).strip().partition("\n")[0][:200]


def _named(tree: exp.Expression, tables: Mapping[str, frozenset[str]]) -> Iterator[Reference]:
    """Give tables the names of views, and yield which is which."""
    made = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    spelled = {name.lower(): name for name in tables}
    spelled |= {name.lower().partition(".")[2]: name for name in tables if "broker." in name}
    for number, node in enumerate(list(tree.find_all(exp.Table))):
        if not isinstance(node.this, exp.Identifier) or node.args.get("catalog"):
            raise ApiError(400, f"{node.sql()[:60]!r} is no table", tables)
        if not node.db and node.name.lower() in made:
            continue
        asked = f"{node.db}.{node.name}" if node.db else node.name
        name = spelled.get(asked.lower())
        if name is None:
            raise ApiError(400, f"there is no table {asked[:80]!r}", tables)
        limits = limits_of(node, tables[name])
        alias = node.alias or node.name
        yield Reference(f"view_{number}", name, limits)
        node.set("db", None)
        node.set("this", exp.to_identifier(f"view_{number}"))
        if not node.alias:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(alias)))
    for column in tree.find_all(exp.Column):
        if column.args.get("db") and f"{column.db}.{column.table}".lower() in spelled:
            column.set("db", None)


def _geometry(node: exp.Expression) -> frozenset[str]:
    """Return the names that a function may have which is known to ADQL alone."""
    return GEOMETRY if type(node) is exp.Anonymous else frozenset()


def _check_size(tree: exp.Expression) -> None:
    """Refuse a query whose plan would be immense: named queries count as often as they are used."""
    weights: dict[str, int] = {}
    for cte in tree.find_all(exp.CTE, bfs=False):  # in the order in which they are written
        weights[cte.alias.lower()] = 1 + _weight(cte.this, weights)
    if (most := _weight(tree, weights)) > MOST_TABLES:
        words = f"the query reads {most} tables, those in WITH as often as they are used"
        raise ApiError(400, f"{words}; at most {MOST_TABLES} are read")


def _weight(tree: exp.Expression, weights: Mapping[str, int]) -> int:
    tables = (node for node in tree.find_all(exp.Table) if isinstance(node.this, exp.Identifier))
    return sum(1 if one.db else weights.get(one.name.lower(), 1) for one in tables)


def _check(tree: exp.Expression) -> None:
    for node in tree.walk():
        if type(node) not in _NODES and str(node.name).upper() not in _geometry(node):
            what = node.name if isinstance(node, exp.Anonymous) else type(node).__name__
            raise ApiError(400, f"{what[:60].upper()!r} cannot be used", (FUNCTIONS,))
        if isinstance(node, exp.With) and node.recursive:
            raise ApiError(400, "a query that calls itself is not allowed")
        if isinstance(node, exp.DataType) and (
            not isinstance(node.this, exp.DataType.Type) or node.this.value not in _TYPES
        ):
            raise ApiError(400, f"there is no type {node.sql()[:40]}", sorted(_TYPES))
    for log in list(tree.find_all(exp.Log)):
        if log.expression is None:  # in ADQL it is the natural one
            log.replace(exp.Ln(this=log.this.copy()))


def _plain_columns(tree: exp.Expression) -> frozenset[str]:
    """Return the columns of an answer that are columns of a table, by name."""
    if not isinstance(tree, exp.Select) or any(tree.find_all(exp.Subquery, exp.CTE)):
        return frozenset()
    found = set()
    for one in tree.expressions:
        if isinstance(one, exp.Star) or (isinstance(one, exp.Column) and one.name == "*"):
            found.add("*")
        elif isinstance(one, exp.Column):
            found.add(one.name.lower())
    return frozenset(found)


def _name_columns(tree: exp.Expression) -> None:
    """Give the columns of an answer names that do not depend on what the query becomes."""
    while not isinstance(tree, exp.Select):
        tree = tree.this
        if tree is None:
            return
    for number, node in enumerate(list(tree.expressions)):
        inner = node.unalias()
        if inner is node and not isinstance(node, exp.Column | exp.Star):
            name = f"column_{number + 1}"
            if isinstance(node, exp.Func):
                anonymous = isinstance(node, exp.Anonymous)
                name = (node.name if anonymous else node.sql_name()).lower()
            node.replace(exp.alias_(node.copy(), name, quoted=True))


def _limit(tree: exp.Expression, most: int) -> None:
    limit = tree.args.get("limit")
    if limit is not None:
        try:
            most = min(most, int(limit.expression.name))
        except ValueError as error:
            raise ApiError(400, "TOP is followed by a whole number") from error
    tree.set("limit", exp.Limit(expression=exp.Literal.number(most)))
