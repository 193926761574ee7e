"""`broker module train`: the models of science modules, from simulated transients."""

from pathlib import Path
from typing import Any

import click

from broker.cli.output import emit_json, emit_rows, json_option, progress

MODEL, REPORT = "model.onnx", "training.json"


@click.command()
@click.argument("name", type=click.Choice(["light_curve_class", "anomaly_score"]))
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all draws.")
@click.option(
    "--objects",
    type=click.IntRange(20),
    default=3000,
    show_default=True,
    help="Of each kind of transient to train on; half as many to calibrate and to test.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for model.onnx and training.json; the module's own to use them.",
)
@json_option
def train(name: str, seed: int, objects: int, out: Path, as_json: bool) -> None:
    """Train the model of the module NAME on simulated transients, and test it on others.

    Light curves of every kind of the simulation, seen with many cadences and depths, pass through
    the modules that NAME reads from; what it would be given is trained on. The same seed and
    number of objects make the same model.

    Example: broker module train light_curve_class --out trained
    """
    import json

    from broker.ops.train_models import train_module
    from broker.science import find_contributions

    with progress("sets of light curves", 3) as advance:
        trained = train_module(
            find_contributions(), name, seed=seed, per_class=objects, advance=advance
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL).write_bytes(trained.onnx)
    (out / REPORT).write_text(json.dumps(trained.report, indent=1) + "\n", encoding="utf-8")
    if as_json:
        emit_json(trained.report)
        return
    _show(trained.report)
    click.echo(f"{out / MODEL} ({len(trained.onnx)} bytes) and {out / REPORT}", err=True)


def _show(report: dict[str, Any]) -> None:
    for name, title in (
        ("confusion", "share of each true class (rows) that is called so"),
        ("calibration", "probabilities, and the share that is true"),
        ("leftOut", "each kind in turn is not trained on, and then asked for, by distance"),
        ("leftOutForest", "the same by isolation forests"),
    ):
        if name in report:
            rows = report[name]
            emit_rows(rows, list(rows[0]), as_json=False, title=title)
    for name in (
        "accuracy",
        "logLoss",
        "calibrationError",
        "temperature",
        "meanAuc",
        "meanAucForest",
    ):
        if name in report:
            click.echo(f"{name} {report[name]:.4f}")
