"""Which weaknesses are known of what the broker is made of, as OSV has them (https://osv.dev)."""

from collections.abc import Collection
from typing import Any

import requests

from broker.errors import ServiceError
from broker.ops.sbom import Component

_MOST_AT_ONCE = 1000
_TIMEOUT_S = 20.0


def known_weaknesses(found: Collection[Component], osv: str) -> dict[Component, list[str]]:
    """Return the names of the advisories for those parts that have any.

    Parameters
    ----------
    found : collection of Component
    osv : str
        Address of OSV's interface, or of a mirror.

    Raises
    ------
    ServiceError
        If not all could be asked for: that is not the same as none found.
    """
    waiting: list[tuple[Component, dict[str, Any]]]
    waiting = [(one, {"package": {"purl": one.purl}}) for one in found]
    names: dict[Component, list[str]] = {}
    while waiting:
        now, waiting = waiting[:_MOST_AT_ONCE], waiting[_MOST_AT_ONCE:]
        for (one, query), answer in zip(now, _ask(osv, [q for _, q in now]), strict=True):
            names.setdefault(one, []).extend(known["id"] for known in answer.get("vulns", ()))
            if answer.get("next_page_token"):
                waiting.append((one, {**query, "page_token": answer["next_page_token"]}))
    return {one: sorted(set(ids)) for one, ids in names.items() if ids}


def _ask(osv: str, queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    url = f"{osv.rstrip('/')}/v1/querybatch"
    try:
        answer = requests.post(url, json={"queries": queries}, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        results: list[dict[str, Any]] = answer.json()["results"]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"weaknesses are not known: {url} did not answer: {error}") from error
    if len(results) != len(queries):
        raise ServiceError(
            f"weaknesses are not known: {url} answered {len(results)} of {len(queries)}"
        )
    return results
