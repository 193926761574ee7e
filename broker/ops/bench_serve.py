"""How fast the API answers from HBase, beside a plain read of HBase in the same run."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from broker.config import Config
from broker.errors import ServiceError
from broker.ops.bench_rows import Row
from broker.science.samples import sample_alerts
from broker.store import keys
from broker.store.alerts import AlertStore, create_tables
from broker.store.table import Tables
from broker.types import Run

SURVEY = "lsst"
TOPIC = "bench"
NIGHTS = 20
FIRST_MJD = 61_000.6
_A_BATCH = 1000
_PER_OBJECT = 3
_OBJECT_P95_MS, _CONE_P95_MS, _MANY_S = 50.0, 200.0, 2.0
_START_S = 60.0
_CLASSES = ("hosted", "hostless", "variable-star", None)

Say = Callable[[str], None]


def bench_serve(
    config: Config, tables: Tables, run: Run, *, alerts: int, users: int, say: Say
) -> list[Row]:
    """Fill a run with alerts if it has none, serve it, and measure.

    Parameters
    ----------
    config : Config
        Names the servers.
    tables : Tables
        HBase.
    run : Run
        Whose tables are filled and read.
    alerts : int
        How many it has.
    users : int
        How many ask at once.
    say : callable
        Is told what is being done.

    Returns
    -------
    list of Row
    """
    fill(tables, run, alerts, say)
    rng = np.random.default_rng(1)
    with _server(config, run) as port:
        say("Asking …")
        client = _Client(port)
        rows = [
            *_objects(client, tables, run, alerts, rng),
            *_cones(client, alerts, rng),
            _many(client, alerts, rng),
            *_searches(client),
        ]
        rows += _crowd(port, users, alerts)
        client.close()
    return rows


def fill(tables: Tables, run: Run, alerts: int, say: Say) -> None:
    """Write made-up alerts, three an object, over the southern sky and twenty nights.

    A run that has the last one already is left as it is.
    """
    create_tables(tables, run, 4)
    store = AlertStore(tables, run)
    if store.alert(SURVEY, str(alerts - 1)) is not None:
        return
    say(f"Writing {alerts} alerts …")
    sample = sample_alerts(_A_BATCH, seed=1, cutouts=False)
    began = time.perf_counter()
    for first in range(0, alerts, _A_BATCH):
        batch = _batch(sample, first, min(_A_BATCH, alerts - first))
        numbers = np.arange(first, first + batch.num_rows)
        outputs = pa.table(
            {
                "context@1.0.0:contextClass": pa.array([_CLASSES[n % 4] for n in numbers]),
                "rise_rate@1.0.0:riseRate": pa.array(numbers / alerts),
            }
        )
        topics = [[TOPIC] if n % 100 == 0 else [] for n in numbers]
        store.put(batch, outputs=outputs, topics=topics, provenance={"code": "bench"})
    say(f"{alerts / (time.perf_counter() - began):.0f} alerts/s were written")


def _batch(sample: pa.Table, first: int, n: int) -> pa.Table:
    numbers = np.arange(first, first + n)
    objects = numbers // _PER_OBJECT
    ra, dec = places(objects)
    night = numbers // _A_BATCH % NIGHTS
    values: dict[str, Any] = {
        "survey": [SURVEY] * n,
        "diaSourceId": [str(i) for i in numbers],
        "diaObjectId": [str(i) for i in objects],
        "ssObjectId": [None] * n,
        "isPublic": [True] * n,
        "midpointMjdTai": FIRST_MJD + night + numbers % 9973 / 40_000.0,
        "ra": ra,
        "dec": dec,
    }
    batch = sample.slice(0, n)
    for name, column in values.items():
        at = batch.schema.get_field_index(name)
        field = batch.schema.field(at)
        batch = batch.set_column(at, field, pa.array(column, field.type))
    return batch


def places(objects: Any) -> tuple[Any, Any]:
    """Return where objects are, by their numbers: even over Dec -75 to 0. [deg]"""
    golden = (np.asarray(objects) * 0.6180339887498949) % 1.0
    other = (np.asarray(objects) * 0.7548776662466927) % 1.0
    return golden * 360.0, np.degrees(np.arcsin(-other * np.sin(np.radians(75.0))))


class _Client:
    """One user with one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, body: Any = None) -> tuple[float, Any]:
        """Return how long an answer took [s], and the answer.

        Raises
        ------
        ServiceError
            If it is no answer.
        """
        began = time.perf_counter()
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        self._connection.request("POST" if data else "GET", f"/api/v1{path}", data, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise ServiceError(f"{path}: {answer.status} {text[:200]!r}")
        return took, json.loads(text)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _p95(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 95.0)) * 1000.0


def _objects(
    client: _Client, tables: Tables, run: Run, alerts: int, rng: np.random.Generator
) -> Iterator[Row]:
    table = tables.table(run.table("alert"))
    served, plain = [], []
    for number in rng.integers(0, alerts // _PER_OBJECT, 300).tolist():
        began = time.perf_counter()
        rows = list(table.scan(*keys.object_range(SURVEY, str(number)), limit=_PER_OBJECT))
        plain.append(time.perf_counter() - began)
        took, answer = client.ask(f"/objects/{SURVEY}/{number}")
        served.append(took)
        if answer["nAlerts"] != len(rows):
            raise ServiceError(f"object {number} has {answer['nAlerts']} alerts, not {len(rows)}")
    p95, beside = _p95(served), _p95(plain)
    anchor = f"plain read of the rows {beside:.1f} ms"
    yield Row(
        "object by id, p95 [ms]", p95, f"<= {_OBJECT_P95_MS:g}", anchor, p95 <= _OBJECT_P95_MS
    )
    yield Row("object by id / plain read", p95 / beside, "", "", None)


def _cones(client: _Client, alerts: int, rng: np.random.Generator) -> Iterator[Row]:
    for low, high in ((1.0, 60.0), (60.0, 3600.0), (3600.0, 3600.0)):
        times, found = [], 0
        for number in rng.integers(0, alerts // _PER_OBJECT, 100).tolist():
            ra, dec = places(number)
            radius = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            path = f"/cone-search?ra={ra:.7f}&dec={dec:.7f}&radiusArcsec={radius:.3f}"
            took, answer = client.ask(path)
            times.append(took)
            found += answer["total"]
            if not answer["total"]:
                raise ServiceError(f"object {number} is not in a cone around it")
        p95 = _p95(times)
        what = f"cone of {low:g} to {high:g} arcsec, p95 [ms]" if low < high else "cone of 1 deg"
        what = what if low < high else f"{what}, p95 [ms]"
        anchor = f"{found / len(times):.0f} objects each"
        yield Row(what, p95, f"<= {_CONE_P95_MS:g}", anchor, p95 <= _CONE_P95_MS)


def _many(client: _Client, alerts: int, rng: np.random.Generator) -> Row:
    times = []
    for _ in range(5):
        ids = [str(i) for i in rng.choice(alerts // _PER_OBJECT, 1000, replace=False)]
        took, answer = client.ask("/objects", {"survey": SURVEY, "ids": ids})
        times.append(took)
        if answer["total"] != 1000:
            raise ServiceError(f"{answer['total']} of 1000 objects came")
    middle = float(np.median(times))
    return Row("1000 ids in one call [s]", middle, f"<= {_MANY_S:g}", "", middle <= _MANY_S)


def _searches(client: _Client) -> Iterator[Row]:
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


def _crowd(port: int, users: int, alerts: int) -> Iterator[Row]:
    """Let many users ask at once, each ten things, one after the other."""
    times: list[float] = []
    errors: list[str] = []
    lock = threading.Lock()

    def user(seed: int) -> None:
        rng = np.random.default_rng(seed)
        client = _Client(port)
        for turn in range(10):
            number = int(rng.integers(0, alerts // _PER_OBJECT))
            ra, dec = places(number)
            cone = f"/cone-search?ra={ra:.7f}&dec={dec:.7f}&radiusArcsec=30"
            try:
                took, _ = client.ask(cone if turn % 3 == 0 else f"/objects/{SURVEY}/{number}")
            except (ServiceError, OSError, http.client.HTTPException) as error:
                with lock:
                    errors.append(str(error))
            else:
                with lock:
                    times.append(took)
        client.close()

    threads = [threading.Thread(target=user, args=(seed,)) for seed in range(users)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    yield Row(
        f"errors of {users} users at once", len(errors), "0", "; ".join(errors[:1]), not errors
    )
    if times:
        yield Row(f"answers to {users} users, p95 [ms]", _p95(times), "", "", None)
        yield Row(f"answers to {users} users [1/s]", len(times) / spent, "", "", None)


@contextmanager
def _server(config: Config, run: Run) -> Iterator[int]:
    """Serve the run in a process of its own; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "broker.cli", "--run", run.name, "serve", "--port", str(port)]
    unlimited = {"BROKER_SERVE__REQUESTS_PER_S": "1000000", "BROKER_SERVE__BURST": "1000000"}
    home = {"BROKER_HOME": str(config.home)}
    process = subprocess.Popen(command, env=os.environ | home | unlimited)
    try:
        _wait(process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"the server ended with {process.returncode}")
        try:
            _Client(port).ask("/modules")
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        else:
            return
    raise ServiceError(f"the server did not answer for {_START_S:g} s")
