"""The whole training of the reliability: nights drawn, trees fitted, calibrated, tested, drawn."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broker.detection.reliability.model import Model
from broker.detection.reliability.report import (
    Judged,
    by_snr,
    by_threshold,
    calibration_error,
    diagram,
)
from broker.detection.reliability.training import train
from broker.ops.reliability_nights import (
    HARD,
    ROUGH,
    Role,
    Sources,
    classes_of,
    draw_sources,
    strips_of,
)

REPORT, DIAGRAM = "reliability-report.json", "reliability-diagram.png"


@dataclass(frozen=True)
class Sizes:
    """How much is drawn.

    Parameters
    ----------
    training, calibration, test : int
        Nights.
    images_per_night : int
    side : int
        Of the images. [px]
    """

    training: int
    calibration: int
    test: int
    images_per_night: int = 8
    side: int = 1024

    @property
    def all_nights(self) -> int:
        """Nights of all three."""
        return self.training + self.calibration + self.test

    def draw(self, seed: int, role: Role, advance: Callable[[int], None]) -> Sources:
        """Draw the nights of a role."""
        return draw_sources(
            seed,
            role,
            nights=(self.training, self.calibration, self.test)[role],
            images_per_night=self.images_per_night,
            side=self.side,
            advance=advance,
        )


QUICK = Sizes(2, 2, 1, images_per_night=6, side=512)


def sizes(nights: int) -> Sizes:
    """Return the sizes for a number of nights of training."""
    other = max(1, nights // 2)
    return Sizes(nights, other, other)


def train_on_nights(
    seed: int, sizes: Sizes, *, advance: Callable[[int], None] = lambda _: None
) -> tuple[Model, dict[str, Any]]:
    """Draw nights, train on them, calibrate and test on others.

    Parameters
    ----------
    seed : int
    sizes : Sizes
    advance : callable
        Called with 1 after each night.

    Returns
    -------
    Model
        The same for the same seed and sizes.
    dict
        The report on the test: for `unseen classes` and `all classes` what `report_on` gives.

    Raises
    ------
    ConfigError
        If there were too few sources or artefacts.
    """
    drawn = {role: sizes.draw(seed, role, advance) for role in Role}
    kinds = classes_of(Role.TRAINING)
    examples = drawn[Role.TRAINING].training_set(kinds, clear_only=True)
    held_out = drawn[Role.CALIBRATION].training_set(kinds, clear_only=False)
    provenance = {
        "command": "broker image train-reliability",
        "seed": seed,
        "sizes": asdict(sizes),
        "classes": list(kinds),
        "seeing_arcsec": [[round(edge, 2) for edge in strip] for strip in strips_of(Role.TRAINING)],
        "training_conditions": [asdict(conditions) for conditions in HARD],
        "calibration_conditions": asdict(ROUGH),
        "training_real": int(examples.is_real.sum()),
        "training_artefacts": int((~examples.is_real).sum()),
        "calibration_real": int(held_out.is_real.sum()),
        "calibration_artefacts": int((~held_out.is_real).sum()),
    }
    model = train(examples, held_out, seed=seed, provenance=provenance)
    test = drawn[Role.TEST]
    report = {
        "provenance": provenance,
        "unseen classes": report_on(test.judged(model, classes_of(Role.TEST)), test.images),
        "all classes": report_on(test.judged(model), test.images),
    }
    return model, report


def report_on(judged: Judged, images: int) -> dict[str, Any]:
    """Return what a test says: rows by threshold and by S/N, the diagram and its error."""
    return {
        "images": images,
        "sources": judged.score.size,
        "real": int(judged.is_real.sum()),
        "thresholds": by_threshold(judged),
        "snr": by_snr(judged),
        "diagram": [
            {
                "score": f"{b.low:.1f}-{b.high:.1f}",
                "mean score": b.score,
                "real": b.real,
                "error": b.error,
                "sources": b.sources,
            }
            for b in diagram(judged)
        ],
        "calibrationError": calibration_error(judged),
    }


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write the report as JSON (null for what could not be computed) and the diagram as PNG."""
    text = json.dumps(_without_nan(report), indent=1)
    folder.joinpath(REPORT).write_text(text + "\n", encoding="utf-8")
    draw_diagram(report, folder / DIAGRAM)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def draw_diagram(report: dict[str, Any], path: Path) -> None:
    """Draw the reliability diagram, and purity and completeness against the threshold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([0.0, 1.0], [0.0, 1.0], color="0.7", linewidth=1.0)
    for name, mark in (("unseen classes", "o"), ("all classes", "s")):
        bins = [b for b in report[name]["diagram"] if b["sources"]]
        left.errorbar(
            [b["mean score"] for b in bins],
            [b["real"] for b in bins],
            yerr=[b["error"] for b in bins],
            fmt=mark,
            capsize=2,
            label=f"{name}: error {report[name]['calibrationError']:.3f}",
        )
    left.set(xlabel="reliability", ylabel="share that is real", title="Reliability diagram")
    left.legend(loc="upper left")
    rows = report["unseen classes"]["thresholds"]
    names = ("purity", "purity S/N>6", "complete S/N>6")
    for name in names:
        right.plot([r["score >="] for r in rows], [r[name] for r in rows], "o-", label=name)
    right.set(xlabel="least reliability", title="Unseen classes, seeing and skies")
    right.legend(loc="lower left")
    figure.savefig(path, dpi=110)
