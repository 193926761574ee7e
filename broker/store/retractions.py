"""What was withdrawn: diaSources and diaObjects that a reprocessing no longer finds.

Nothing is deleted: a retraction is a mark beside what is there, and one that turns out to be
wrong is lifted by a newer mark.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from broker.store import keys
from broker.store.table import Tables
from broker.types import Run

_FAMILY = b"r:"


@dataclass(frozen=True)
class Retraction:
    """A mark on one diaSource, or on a whole diaObject.

    Parameters
    ----------
    dia_object_id : int
        Of which object.
    dia_source_id : int or None
        Which of its sources; None for the object as a whole, when all of them are withdrawn.
    time_withdrawn_mjd_tai : float
        When it was withdrawn, MJD, TAI. [d]
    reason : str
        Why, in one sentence.
    template_version : str
        The set of templates it was no longer found with.
    software_version : str
        The version of the software that no longer found it.
    is_retracted : bool
        False if an earlier retraction is lifted: it was found again.
    """

    dia_object_id: int
    dia_source_id: int | None
    time_withdrawn_mjd_tai: float
    reason: str
    template_version: str
    software_version: str
    is_retracted: bool = True

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Retraction":
        """Return what `to_json` made."""
        return cls(**json.loads(text))


class RetractionStore:
    """Retractions by diaObject.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._tables, self._name = tables, run.table("retraction")

    def put(self, retractions: Sequence[Retraction]) -> None:
        """Keep retractions; of two on the same thing the later one counts."""
        self._tables.table(self._name).put_timed(
            (
                _key(one.dia_object_id),
                {_column(one): one.to_json()},
                keys.time_ms(one.time_withdrawn_mjd_tai),
            )
            for one in retractions
        )

    def of_object(self, dia_object_id: str | int) -> list[Retraction]:
        """Return the marks on an object and its sources, the object's first, then by source."""
        row = self._tables.table(self._name).get(_key(dia_object_id)) or {}
        return [Retraction.from_json(row[column]) for column in sorted(row)]


def _key(dia_object_id: str | int) -> bytes:
    return keys.alert_id_key("sim", str(dia_object_id))


def _column(one: Retraction) -> bytes:
    name = "" if one.dia_source_id is None else f"{one.dia_source_id:016x}"
    return _FAMILY + name.encode()
