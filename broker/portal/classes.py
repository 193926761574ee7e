"""What modules say an object is: now, and with each alert before."""

from collections.abc import Sequence
from typing import Any

from broker.api.rows import iso_utc
from broker.api.sources import Alert
from broker.store.blocks import is_class


def class_history(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """Return one row a change of a class that a module gave, the newest first.

    Parameters
    ----------
    alerts : sequence of Alert
        Of an object, oldest first.

    Returns
    -------
    list of dict
        `module`, `version`, `column`, `value`, `first` and `last` [MJD (TAI)] of the alerts that
        it holds for, `alerts` their number, `isNewest`.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        for module, values in alert["outputs"].items():
            for column, value in values.items():
                if not is_class(f"{module}:{column}"):
                    continue
                said = runs.setdefault(f"{module}:{column}", [])
                if not said or said[-1]["value"] != value:
                    said.append(_begun(module, column, value, alert))
                said[-1]["last"] = alert["midpointMjdTai"]
                said[-1]["alerts"] += 1
    newest = alerts[-1]["outputs"] if alerts else {}
    for label, said in runs.items():
        module, _, column = label.rpartition(":")
        said[-1]["isNewest"] = column in newest.get(module, {})
    rows = [row for said in runs.values() for row in said]
    return sorted(rows, key=lambda row: (-row["last"], row["module"], row["column"]))


def _begun(module: str, column: str, value: Any, alert: Alert) -> dict[str, Any]:
    name, _, version = module.partition("@")
    return {
        "module": name,
        "version": version,
        "column": column,
        "value": value,
        "first": alert["midpointMjdTai"],
        "firstUtc": iso_utc(alert["midpointMjdTai"]),
        "last": alert["midpointMjdTai"],
        "alerts": 0,
        "isNewest": False,
    }


def probabilities(alert: Alert) -> list[dict[str, Any]]:
    """Return the probabilities of classes that modules gave for an alert, the highest first.

    A column is one if its name says so and its value lies between 0 and 1.
    """
    rows = []
    for module, values in alert["outputs"].items():
        name, _, version = module.partition("@")
        for column, value in values.items():
            is_one = "probability" in column.lower()
            if is_one and isinstance(value, float) and 0.0 <= value <= 1.0:
                row = {"module": name, "version": version, "column": column, "value": value}
                rows.append(row)
    return sorted(rows, key=lambda row: (row["module"], row["version"], -row["value"]))
