"""`broker bench faults`, `soak` and `fuzz`: what a broker survives, for how long, what it reads."""

import sys
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_json, emit_rows, json_option

_COLUMNS = ("kind", "faults", "survived", "lost", "twice", "unequal", "repeats", "p50_s", "p95_s")


@click.command()
@click.option(
    "--kills",
    type=click.IntRange(1),
    default=18,
    show_default=True,
    help="How many faults, each kind as often as the others.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws them.")
@click.option("--kind", "kinds", multiple=True, help="Only faults of this kind; may be repeated.")
@click.option(
    "--pause-s",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="How long a process is stopped or a network is cut [s].",
)
@click.option(
    "--outage-s",
    type=click.FloatRange(1.0),
    default=600.0,
    show_default=True,
    help="How long the stream is away in an outage [s].",
)
@click.option(
    "--burst-alerts",
    type=click.IntRange(100),
    default=40_000,
    show_default=True,
    help="How many alerts come at once in a burst.",
)
@click.option(
    "--control/--no-control",
    default=True,
    show_default=True,
    help="Compare all rows and packets with those of a run that nothing happens to.",
)
@click.option(
    "--transactions",
    is_flag=True,
    help="Send packets in Kafka's transactions; then none may come twice.",
)
@json_option
@click.pass_context
def faults(
    ctx: click.Context,
    kills: int,
    seed: int,
    kinds: tuple[str, ...],
    pause_s: float,
    outage_s: float,
    burst_alerts: int,
    control: bool,
    transactions: bool,
    as_json: bool,
) -> None:
    """Kill, stop and cut off parts of a broker under load; prove that nothing is lost or twice.

    On servers of its own, which are stopped and deleted afterwards: nothing else is touched. Exit
    code 20 if a fault was not survived.

    Example: broker bench faults --kills 100 --seed 1
    """
    from broker.ops.faults import bench_faults, draw, usable

    known = usable(transactions=transactions)
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise click.UsageError(f"there is no kind {unknown[0]!r}; there are {', '.join(known)}")
    chosen = draw(kills, seed, transactions=transactions)
    if kinds:
        chosen = [kinds[i % len(kinds)] for i in range(kills)]
    found = bench_faults(
        load(ctx),
        chosen,
        seed=seed,
        pause_s=pause_s,
        outage_s=outage_s,
        burst_alerts=burst_alerts,
        control=control,
        transactions=transactions,
        say=lambda words: click.echo(words, err=True),
    )
    rows = fault_rows(found)
    if as_json:
        emit_json({"rows": rows, "differences": found.differences})
    else:
        emit_rows(rows, _COLUMNS, as_json=False)
        for words in (found.differences or [])[:10]:
            click.echo(f"not as in an undisturbed run: {words}")
    if not found.is_good or len(found.rows) < kills:
        sys.exit(BAD_DATA)


def fault_rows(found: Any) -> list[dict[str, Any]]:
    """Return a row a kind of fault, and one of all."""
    names = sorted({row.kind for row in found.rows})
    return [_fault_row(found, name) for name in names] + [_fault_row(found, None)]


def _fault_row(found: Any, kind: str | None) -> dict[str, Any]:
    mine = [row for row in found.rows if kind in (None, row.kind)]
    p50, p95 = found.recovery_s(kind)
    return {
        "kind": kind or "all",
        "faults": len(mine),
        "survived": sum(row.is_survived for row in mine),
        **{
            name: sum(getattr(row, name) for row in mine)
            for name in ("lost", "twice", "unequal", "repeats")
        },
        "p50_s": p50,
        "p95_s": p95,
    }


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(1.0),
    default=60.0,
    show_default=True,
    help="How long the stream runs under an even load.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws packets.")
@json_option
@click.pass_context
def soak(ctx: click.Context, minutes: float, seed: int, as_json: bool) -> None:
    """Run a stream under an even load; say whether memory, handles, checkpoint and latency grow.

    On servers of its own. Growth is a share of the mean in an hour, with its standard error; it is
    open where the time was too short to tell. Exit code 20 if something grows or is lost.

    Example: broker bench soak --minutes 60
    """
    from dataclasses import asdict

    from broker.ops.faults import bench_soak

    found = bench_soak(load(ctx), minutes, seed=seed, say=lambda words: click.echo(words, err=True))
    rows = [asdict(one) | {"verdict": one.verdict} for one in found.slopes]
    if as_json:
        emit_json({"soak": asdict(found), "slopes": rows})
    else:
        emit_rows(rows, list(rows[0]), as_json=False)
        one = found.finding
        click.echo(
            f"{found.alerts} messages in {found.seconds:.0f} s, {found.batches} batches judged; "
            f"lost {one.lost}, twice {one.twice}, unequal {one.unequal}"
        )
    if not found.is_good:
        sys.exit(BAD_DATA)


_MOST_GROWTH = 1.3
"""How much more memory may be used at the end than after a quarter of the packets."""


@click.command()
@click.option(
    "--packets",
    type=click.IntRange(100),
    default=100_000,
    show_default=True,
    help="Spoilt packets, of all surveys and images.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws them.")
@json_option
@click.pass_context
def fuzz(ctx: click.Context, packets: int, seed: int, as_json: bool) -> None:
    """Send spoilt packets of every survey, and images, through what reads them.

    Bits turned, cut, grown, lengths that cannot be, nested deep, NaN, mixed with others, cutouts
    that unpack to 80 MB. Exit code 20 if one is neither an alert nor refused, or memory grows.

    Example: broker bench fuzz --packets 100000
    """
    from dataclasses import asdict

    from broker.ops.fuzz.bench import bench_fuzz

    found = bench_fuzz(load(ctx), packets, seed=seed, say=lambda words: click.echo(words, err=True))
    rows = [asdict(row) | {"unaccounted": row.unaccounted} for row in found]
    emit_rows(rows, list(rows[0]), as_json=as_json)
    if any(r.unaccounted or r.last_mb > _MOST_GROWTH * r.first_mb for r in found):
        sys.exit(BAD_DATA)
