"""`broker image train-reliability`: the weights of real/bogus, from simulated nights."""

from pathlib import Path
from typing import Any

import click

from broker.cli.output import emit_json, emit_rows, json_option, progress

_BAR = 30


@click.command("train-reliability")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all draws.")
@click.option(
    "--nights",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="To train on, of 8 images each; half as many, with other skies, to calibrate and to test.",
)
@click.option("--quick", is_flag=True, help="Few small images: to see that it works, not to use.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the weights, the report and the diagram; made if it is not there.",
)
@json_option
def train_reliability(seed: int, nights: int, quick: bool, out: Path, as_json: bool) -> None:
    """Train the score that tells sources of the sky from artefacts, and test it.

    Nights are simulated with cosmic rays, defects, a PSF that varies and a WCS that is off. The
    score is calibrated on other nights and tested on third ones, whose seeing and classes of
    transients it has not seen. Writes reliability.json (the weights; put it into
    broker/detection/reliability to use it), reliability-report.json and reliability-diagram.png.

    Example: broker image train-reliability --out trained
    """
    from broker.detection.reliability.model import FILE, model_json
    from broker.ops import reliability_training as training

    sizes = training.QUICK if quick else training.sizes(nights)
    with progress("nights", sizes.all_nights) as advance:
        model, report = training.train_on_nights(seed, sizes, advance=advance)
    out.mkdir(parents=True, exist_ok=True)
    out.joinpath(FILE).write_text(model_json(model), encoding="utf-8")
    training.write_report(report, out)
    if as_json:
        emit_json(report)
        return
    _show(report)
    click.echo(f"weights, report and diagram are in {out}", err=True)


def _show(report: dict[str, Any]) -> None:
    for name in ("unseen classes", "all classes"):
        part = report[name]
        title = f"{name}: {part['images']} images of the test"
        for rows, words in (("thresholds", "by threshold"), ("snr", "at a score of 0.5, by S/N")):
            emit_rows(part[rows], list(part[rows][0]), as_json=False, title=f"{title}, {words}")
    part = report["unseen classes"]
    bars = [row | {"of the sources, real": _bar(row["real"])} for row in part["diagram"]]
    columns = ["score", "mean score", "real", "error", "sources", "of the sources, real"]
    emit_rows(bars, columns, as_json=False, title="reliability diagram, unseen classes")
    click.echo(f"expected calibration error {part['calibrationError']:.4f}")


def _bar(share: float) -> str:
    return "█" * round(_BAR * share) if share == share else ""
