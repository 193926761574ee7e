"""`broker sbom`: what the broker is made of, under which licences, and what is known against it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli.output import BAD_DATA, emit_json, emit_rows, json_option

if TYPE_CHECKING:
    from broker.ops.sbom import Component


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the bill of materials here (CycloneDX, JSON).")  # fmt: skip
@click.option("--advisories", is_flag=True,
              help="Ask OSV which parts have known weaknesses (needs the network).")  # fmt: skip
@click.option("--accept", multiple=True, metavar="ID",
              help="An advisory that does not matter here; may be repeated.")  # fmt: skip
@click.option("--osv", default="https://api.osv.dev", show_default=True,
              help="Address of OSV, or of a mirror.")  # fmt: skip
@json_option
def command(
    out: Path | None, advisories: bool, accept: tuple[str, ...], osv: str, as_json: bool
) -> None:
    """List every package and jar with version and licence, from what is installed.

    With --json the list is a bill of materials in CycloneDX. Exit code 20 if a licence is
    unknown or not among those that are allowed, or if a part has a known weakness that is not
    accepted; 21 if OSV does not answer.

    Example: broker sbom --advisories --out sbom.json
    """
    from broker.ops.sbom import components, cyclonedx

    found = components()
    bill = cyclonedx(found)
    if out is not None:
        out.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    if as_json:
        emit_json(bill)
    elif out is None:
        rows = [
            {"kind": c.kind, "name": c.name, "version": c.version, "licence": c.licence or None}
            for c in found
        ]
        emit_rows(rows, ("kind", "name", "version", "licence"), as_json=False)
    is_good = _judge_licences(found)
    if advisories:
        is_good = _judge_weaknesses(found, set(accept), osv) and is_good
    if not is_good:
        sys.exit(BAD_DATA)


def _judge_licences(found: Sequence["Component"]) -> bool:
    refused = [one for one in found if not one.is_allowed]
    for one in refused:
        click.echo(
            f"{one.name} {one.version}: {one.licence or 'no licence that is known'}", err=True
        )
    click.echo(f"{len(found)} parts, {len(refused)} with a licence that is not allowed.", err=True)
    return not refused


def _judge_weaknesses(found: Sequence["Component"], accepted: set[str], osv: str) -> bool:
    from broker.ops.advisories import known_weaknesses

    known = known_weaknesses(found, osv)
    weak = {one: left for one, ids in known.items() if (left := sorted(set(ids) - accepted))}
    for one, ids in weak.items():
        click.echo(f"{one.name} {one.version}: {', '.join(ids)}", err=True)
    click.echo(f"{len(weak)} of {len(found)} parts with known weaknesses.", err=True)
    return not weak
