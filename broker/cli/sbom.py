"""`broker sbom`: what the broker is made of, and under which licences."""

import json
import sys
from pathlib import Path

import click

from broker.cli.output import BAD_DATA, emit_json, emit_rows, json_option


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the bill of materials here (CycloneDX, JSON).")  # fmt: skip
@json_option
def command(out: Path | None, as_json: bool) -> None:
    """List every package and jar with version and licence, from what is installed.

    With --json the list is a bill of materials in CycloneDX. Exit code 20 if a licence is
    unknown, or not among those that are allowed.

    Example: broker sbom --out sbom.json
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
    refused = [one for one in found if not one.is_allowed]
    for one in refused:
        click.echo(
            f"{one.name} {one.version}: {one.licence or 'no licence that is known'}", err=True
        )
    click.echo(f"{len(found)} parts, {len(refused)} with a licence that is not allowed.", err=True)
    if refused:
        sys.exit(BAD_DATA)
