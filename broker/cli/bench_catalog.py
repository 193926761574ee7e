"""`broker bench catalog`: catalogues beside well-kept libraries, in one run."""

import importlib
from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_findings, json_option

STEPS = {
    "stream": "broker.catalog.benchmark.stream",
    "tiles": "broker.catalog.benchmark.tiles",
    "bodies": "broker.catalog.benchmark.bodies",
    "nearest": "broker.catalog.benchmark.nearest",
    "space": "broker.catalog.benchmark.space",
    "join": "broker.catalog.benchmark.joins",
    "notices": "broker.notices.benchmark",
    "clusters": "broker.batch.measure_clusters",
    "growth": "broker.catalog.benchmark.growth",
}


def _number(default: int, least: int, words: str) -> Any:
    return {
        "type": click.IntRange(least),
        "default": default,
        "show_default": True,
        "help": words,
    }


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice([*STEPS]), help="Only this step; may be repeated."
)
@click.option("--rows", **_number(10_000_000, 10_000, "Of catalogues to match, join and cluster."))
@click.option("--points", **_number(100_000_000, 10_000, "For the nearest, and the growth."))
@click.option("--layout-rows", **_number(1_000_000_000, 100_000, "Of the largest catalogue."))
@click.option("--orbits", **_number(1_000_000, 1000, "Bodies on orbits."))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the growth's plot."
)
@json_option
@click.pass_context
def catalog(
    ctx: click.Context, /, only: tuple[str, ...], out: Path | None, as_json: bool, **sizes: int
) -> None:
    """Measure catalogues beside well-kept libraries, on the same data in the same run.

    Times are of one core unless a row says otherwise. At the default sizes it takes a quarter of
    an hour, 16 GB of the disk and 8 GB of memory.

    Example: broker bench catalog --rows 1000000 --only stream --only join
    """
    from broker.catalog.benchmark.sizes import Sizes

    made = Sizes(**sizes, out=out)
    rows = []
    for name, module in STEPS.items():
        if only and name not in only:
            continue
        step = importlib.import_module(module)
        click.echo((step.__doc__ or "").splitlines()[0], err=True)
        rows += step.rows(made, load(ctx)) if name == "clusters" else step.rows(made)
    emit_findings(rows, as_json=as_json, beside="reference")
