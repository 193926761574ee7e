"""A working science module to start from."""

import keyword
import re
from pathlib import Path

from broker.alerts.columns import camel_case
from broker.errors import ConfigError

_NAME = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")

MODULE = '''"""How far the newest flux of {words} lies from the mean of the earlier ones."""

import numpy as np
import pandas as pd

from broker.science import Column, LightCurves, science_module


@science_module(
    version="0.1.0",
    outputs=(
        Column("{wire}", "float32", "nJy", "psfFlux minus the mean of the earlier detections."),
    ),
)
def {name}(psf_flux: pd.Series, history: LightCurves) -> pd.DataFrame:
    """Compare each alert's flux with its earlier detections, in any band.

    Positional parameters name the inputs; what is tuned is keyword-only.

    Parameters
    ----------
    psf_flux : pd.Series
        Flux of the alert. [nJy]
    history : LightCurves
        Histories, the alerts' own detections among them.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) where there is no earlier detection.
    """
    detections = history.detections()
    is_earlier = detections.mjd < detections.max(detections.mjd)[detections.alert]
    earlier = detections.select(is_earlier)
    return pd.DataFrame({{"{wire}": (psf_flux - earlier.mean(earlier.flux)).astype(np.float32)}})
'''

TEST = '''"""{title} is what it says; the contract is tested for all modules together."""

from pathlib import Path

import numpy as np
import pandas as pd

from broker.science import LightCurves, load_module

module = load_module(Path(__file__).parent)


def test_the_newest_flux_is_compared_with_the_mean_of_the_earlier_ones():
    history = LightCurves(
        alert=np.array([0, 0, 0, 1]),
        mjd=np.array([61000.0, 61001.0, 61002.0, 61002.0]),
        flux=np.array([10.0, 20.0, 100.0, 7.0]),
        flux_err=np.ones(4),
        n_alerts=2,
    )

    got = module(pd.Series([100.0, 7.0]), history)["{wire}"]

    assert got[0] == 85.0
    assert np.isnan(got[1])  # nothing earlier: null, never zero
'''

README = """# {title}

What it computes, for whom, and from which publication the method is.

| output | type, unit | meaning |
|---|---|---|
| `{wire}` | float32, nJy | psfFlux minus the mean of the earlier detections |

Null where there is no earlier detection.
"""


def new_module(name: str, folder: Path) -> list[Path]:
    """Write a module folder that passes its own checks; return its files.

    Parameters
    ----------
    name : str
        The module's name, snake_case.
    folder : Path
        The modules folder; made if it is not there.

    Raises
    ------
    ConfigError
        If the name is not allowed or taken.
    """
    if not _NAME.match(name) or keyword.iskeyword(name):
        raise ConfigError(f"a module's name is in snake_case, {name!r} is not", name=name)
    target = folder / name
    if target.exists():
        raise ConfigError(f"{target} is there already; take another name", name=name)
    words = {
        "name": name,
        "wire": camel_case(name) + "Change",
        "title": name.replace("_", " ").capitalize(),
        "words": name.replace("_", " "),
    }
    target.mkdir(parents=True)
    written = []
    for file, text in (("module.py", MODULE), ("test_module.py", TEST), ("README.md", README)):
        path = target / file
        path.write_text(text.format(**words), encoding="utf-8")
        written.append(path)
    return written
