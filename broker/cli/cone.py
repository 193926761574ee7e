"""`broker cone`: the objects around a place on the sky."""

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

_COLUMNS = (
    "survey",
    "diaObjectId",
    "separation",
    "ra",
    "dec",
    "diaSourceId",
    "midpointMjdTai",
    "band",
    "psfFlux",
    "snr",
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("ra", type=click.FloatRange(0.0, 360.0))
@click.argument("dec", type=click.FloatRange(-90.0, 90.0))
@click.argument("radius_arcsec", type=click.FloatRange(0.0, 36_000.0))
@json_option
@click.pass_context
def command(ctx: click.Context, ra: float, dec: float, radius_arcsec: float, as_json: bool) -> None:
    """List the objects within RADIUS_ARCSEC of RA DEC (degrees, ICRS), the nearest first.

    Each with its newest alert; the separation is in arcseconds.

    Example: broker cone 150.1 -2.2 30
    """
    from broker.store.alerts import AlertStore

    with tables_of(ctx) as tables:
        rows = AlertStore(tables, load(ctx).the_run).cone(ra, dec, radius_arcsec)
    emit_rows(rows, _COLUMNS, as_json=as_json)
