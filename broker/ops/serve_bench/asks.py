"""What one user asks, each question beside a plain read of the same rows from HBase."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from broker.bench_rows import Row, at_most
from broker.errors import ServiceError
from broker.ops.serve_bench.fill import PER_OBJECT, SURVEY, TOPIC, places
from broker.ops.serve_bench.server import Client, p95_ms
from broker.store import keys
from broker.store.table import Tables
from broker.types import Run

_OBJECT_P95_MS, _CONE_P95_MS, _MANY_S, _PAGE_P95_MS = 50.0, 200.0, 2.0, 300.0
_OBJECTS, _CONES, _MANY, _TURNS = 300, 100, 1000, 5
A = TypeVar("A")
B = TypeVar("B")

_PLACE_BYTES = 16
"""Of a cell of the table `sky`, before the key of the alert."""


class PlainReader:
    """Reads a run's rows as HBase has them: nothing is unpacked, judged or put into words."""

    def __init__(self, tables: Tables, run: Run) -> None:
        self._alerts = tables.table(run.table("alert"))
        self._sky = tables.table(run.table("sky"))

    def object(self, name: str) -> tuple[float, int]:
        """Return how long the rows of an object took [s], and how many there are."""
        began = time.perf_counter()
        rows = list(self._alerts.scan(*keys.object_range(SURVEY, name), limit=PER_OBJECT))
        return time.perf_counter() - began, len(rows)

    def objects(self, names: Sequence[str]) -> float:
        """Return how long the rows of many objects took, one object after the other. [s]"""
        return sum(self.object(name)[0] for name in names)

    def cone(self, ra: float, dec: float, radius_arcsec: float) -> float:
        """Return how long the rows of the pixels in a cone took. [s]"""
        began = time.perf_counter()
        found: list[bytes] = []
        for first, end in keys.cone_ranges(ra, dec, radius_arcsec, keys.SKY_ORDER):
            for _, row in self._sky.scan(*keys.pixel_range(first, end), first_cell=True):
                found += (value[_PLACE_BYTES:] for value in row.values())
        self._alerts.get_many(found)
        return time.perf_counter() - began


def ask_alone(
    client: Client, tables: Tables, run: Run, *, alerts: int, with_packets: Sequence[str]
) -> list[Row]:
    """Ask one question after the other, and read the same rows plainly in turn.

    Parameters
    ----------
    client : Client
        Asks the server of the run.
    tables : Tables
        HBase.
    run : Run
        As `fill` made it.
    alerts : int
        How many it has.
    with_packets : sequence of str
        Objects whose packets are there.
    """
    plain, rng = PlainReader(tables, run), np.random.default_rng(1)
    return [
        *_objects(client, plain, alerts, rng),
        *_cones(client, plain, alerts, rng),
        *_many(client, plain, alerts, rng),
        *_pages(client, plain, with_packets),
        *_searches(client),
    ]


def _objects(
    client: Client, plain: PlainReader, alerts: int, rng: np.random.Generator
) -> Iterator[Row]:
    served, beside = [], []
    for turn, number in enumerate(rng.integers(0, alerts // PER_OBJECT, _OBJECTS).tolist()):
        (took, answer), (plainly, there) = _in_turn(
            turn,
            partial(client.ask, f"/objects/{SURVEY}/{number}"),
            partial(plain.object, str(number)),
        )
        served.append(took)
        beside.append(plainly)
        if answer["nAlerts"] != there:
            raise ServiceError(f"object {number} has {answer['nAlerts']} alerts, not {there}")
    yield from _pair("object by id, p95 [ms]", served, beside, _OBJECT_P95_MS)


def _cones(
    client: Client, plain: PlainReader, alerts: int, rng: np.random.Generator
) -> Iterator[Row]:
    for low, high in ((1.0, 60.0), (60.0, 3600.0), (3600.0, 3600.0)):
        served, beside, found = [], [], 0
        for turn, number in enumerate(rng.integers(0, alerts // PER_OBJECT, _CONES).tolist()):
            ra, dec = (float(one) for one in places(number))
            radius = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            path = f"/cone-search?ra={ra:.7f}&dec={dec:.7f}&radiusArcsec={radius:.3f}"
            (took, answer), plainly = _in_turn(
                turn, partial(client.ask, path), partial(plain.cone, ra, dec, radius)
            )
            served.append(took)
            beside.append(plainly)
            found += answer["total"]
            if not answer["total"]:
                raise ServiceError(f"object {number} is not in a cone around it")
        what = f"cone of {low:g} to {high:g} arcsec" if low < high else "cone of 1 deg"
        more = f", {found / len(served):.0f} objects each"
        yield from _pair(f"{what}, p95 [ms]", served, beside, _CONE_P95_MS, more)


def _many(
    client: Client, plain: PlainReader, alerts: int, rng: np.random.Generator
) -> Iterator[Row]:
    served, beside = [], []
    for turn in range(_TURNS):
        ids = [str(i) for i in rng.choice(alerts // PER_OBJECT, _MANY, replace=False)]
        (took, answer), plainly = _in_turn(
            turn,
            partial(client.ask, "/objects", {"survey": SURVEY, "ids": ids}),
            partial(plain.objects, ids),
        )
        served.append(took)
        beside.append(plainly)
        if answer["total"] != _MANY:
            raise ServiceError(f"{answer['total']} of {_MANY} objects came")
    middle, one = float(np.median(served)), float(np.median(beside))
    anchor = f"plain reads one after the other {one:.2f} s"
    yield at_most(f"{_MANY} ids in one call [s]", middle, _MANY_S, anchor)
    yield Row(f"{_MANY} ids in one call / plain reads", middle / one)


def _pages(client: Client, plain: PlainReader, names: Sequence[str]) -> Iterator[Row]:
    """Ask for objects' pages: cutouts and history come from a packet, opened for the first time."""
    served, beside, size = [], [], 0
    for turn, name in enumerate(names):
        (took, page), (plainly, _) = _in_turn(
            turn,
            partial(client.page, f"/objects/{SURVEY}/{name}"),
            partial(plain.object, name),
        )
        served.append(took)
        beside.append(plainly)
        size += len(page)
        if "/cutouts/" not in page:
            raise ServiceError(f"the page of object {name} shows no cutouts")
    more = f", {size / len(served) / 1000.0:.0f} kB each"
    yield from _pair("page of an object, p95 [ms]", served, beside, _PAGE_P95_MS, more)


def _searches(client: Client) -> Iterator[Row]:
    night = client.ask("/statistics/nights")[1]["data"][-1]["night"]
    for what, path in (
        ("search of a night by class [s]", f"/alerts?night={night}&class=hosted&minSnr=10"),
        ("search of a topic [s]", f"/alerts?topic={TOPIC}"),
        ("search of all nights by band [s]", "/alerts?band=g"),
        ("counts of all nights [s]", "/statistics/nights?by=topic"),
        ("map of a night [s]", f"/statistics/map?firstNight={night}&format=json"),
    ):
        took, answer = client.ask(path)
        yield Row(what, took, "", f"{answer.get('total', len(answer['data']))} found", None)


def _in_turn(turn: int, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Do both, every other turn the second before: what one has read the other finds in memory."""
    if turn % 2 == 0:
        one = first()
        return one, second()
    other = second()
    return first(), other


def _pair(
    what: str, served: Sequence[float], beside: Sequence[float], most_ms: float, more: str = ""
) -> Iterator[Row]:
    """Yield an answer's time, and how many times that of the plain read it is."""
    p95, plain = p95_ms(served), p95_ms(beside)
    yield at_most(what, p95, most_ms, f"plain read of the rows {plain:.1f} ms{more}")
    ratio = float(np.median(np.asarray(served) / np.asarray(beside)))
    yield Row(f"{what.split(', p95')[0]} / plain read", ratio, "", "median of pairs")


def question(rng: np.random.Generator, alerts: int) -> str:
    """Return the path of what a user asks next: two objects by id for each cone of 30 arcsec."""
    number = int(rng.integers(0, alerts // PER_OBJECT))
    if rng.integers(3):
        return f"/objects/{SURVEY}/{number}"
    ra, dec = places(number)
    return f"/cone-search?ra={ra:.7f}&dec={dec:.7f}&radiusArcsec=30"
