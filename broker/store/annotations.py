"""What remote services said of alerts, by alert and service."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from broker.store import keys
from broker.store.table import Tables
from broker.types import Run

MATCH, NO_MATCH, FAILED, NOT_ASKED = STATUSES = ("match", "no-match", "failed", "not-asked")

_FAMILY = b"a:"


@dataclass(frozen=True)
class Annotation:
    """What a service said of an alert.

    Parameters
    ----------
    survey, dia_source_id : str
        The alert.
    dia_object_id : str or None
        Its object.
    service : str
        The service's name.
    status : str
        One of `STATUSES`: `failed` is asked without an answer that can be used.
    match_id : str or None
        Identifier of the nearest entry.
    separation : float or None
        Distance from it. [arcsec]
    numbers, texts : dict
        What was asked for of the entry, by name.
    reason : str
        Why it failed or was not asked.
    time_mjd_tai : float
        When, MJD, TAI. [d]
    """

    survey: str
    dia_source_id: str
    dia_object_id: str | None
    service: str
    status: str
    match_id: str | None = None
    separation: float | None = None
    numbers: dict[str, float | None] = field(default_factory=dict)
    texts: dict[str, str | None] = field(default_factory=dict)
    reason: str = ""
    time_mjd_tai: float = 0.0

    @property
    def is_answer(self) -> bool:
        """Whether the service said what is there, or that nothing is."""
        return self.status in (MATCH, NO_MATCH)


class AnnotationStore:
    """Annotations; of two by one service the later one counts.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._table = tables.table(run.table("annotation"))

    def put(self, annotations: Iterable[Annotation]) -> None:
        """Keep annotations and wait until all are acknowledged."""
        self._table.put_timed(
            (
                keys.alert_id_key(one.survey, one.dia_source_id),
                {_FAMILY + one.service.encode(): json.dumps(asdict(one), sort_keys=True).encode()},
                keys.time_ms(one.time_mjd_tai),
            )
            for one in annotations
        )

    def of_alert(self, survey: str, dia_source_id: str) -> list[Annotation]:
        """Return what services said of an alert, in the order of their names."""
        row = self._table.get(keys.alert_id_key(survey, dia_source_id)) or {}
        return [_read(row[column]) for column in sorted(row)]

    def answers(
        self, alerts: Sequence[tuple[str, str]], service: str
    ) -> dict[tuple[str, str], Annotation]:
        """Return the answers that a service has given before, by survey and diaSourceId."""
        column = _FAMILY + service.encode()
        by_key = {keys.alert_id_key(*alert): alert for alert in alerts}
        rows = self._table.get_many(sorted(by_key), columns=[column])
        found = {by_key[key]: _read(row[column]) for key, row in rows.items() if column in row}
        return {alert: one for alert, one in found.items() if one.is_answer}


def _read(text: bytes) -> Annotation:
    return Annotation(**json.loads(text))
