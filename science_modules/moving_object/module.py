"""Moving objects: known ones, and detections that look like unknown ones."""

import numpy as np
import pandas as pd

from broker.science import Column, science_module, topic_filter
from broker.science.cuts import all_of, ecliptic_latitude, is_reliable

NONE, CANDIDATE, KNOWN = range(3)


@science_module(
    version="1.1.0",
    outputs=(
        Column("movingObjectFlag", "int32", "", "0 none, 1 may be an unknown one, 2 a known one."),
        Column("eclipticLatitude", "float32", "deg", "Ecliptic latitude, J2000."),
    ),
)
def moving_object(
    context_class: pd.Series,
    n_dia_sources: pd.Series,
    age_days: pd.Series,
    is_negative: pd.Series,
    is_dipole: pd.Series,
    is_hostless: pd.Series,
    template_flux: pd.Series,
    template_flux_err: pd.Series,
    ra: pd.Series,
    dec: pd.Series,
    *,
    max_age_days: float = 0.02,
) -> pd.DataFrame:
    """Tell known objects from detections that are new where nothing else is.

    Parameters
    ----------
    context_class : pd.Series
        From `context`.
    n_dia_sources : pd.Series
        Detections at this place, this one among them.
    age_days : pd.Series
        Since the first of them. [d]
    is_negative, is_dipole : pd.Series
        Signs of something else.
    is_hostless : pd.Series
        From `hostless`: nothing on the template.
    template_flux, template_flux_err : pd.Series
        A galaxy beside it does not matter where this says that the place is dark. [nJy]
    ra, dec : pd.Series
        [deg]
    max_age_days : float
        A slow object is within an arcsecond of itself for some minutes, and is then detected
        more than once at a place. [d]

    Returns
    -------
    pd.DataFrame, n_alerts rows
        The flag is never null. A candidate is new, positive and round, with nothing on the
        template and no star or galaxy in the catalogue; it is not known yet to move: that takes
        another detection elsewhere, and a link between them.
    """
    is_known = (context_class == "solar-system").to_numpy()
    on_cutout = is_hostless.fillna(False).to_numpy(bool)
    is_dark = (template_flux < 5.0 * template_flux_err).to_numpy()
    is_new = ((n_dia_sources == 1) | (age_days <= max_age_days)).to_numpy()
    is_candidate = (
        context_class.isin(["hostless", "unknown"]).to_numpy()
        & is_new
        & ~is_negative.to_numpy()
        & ~is_dipole.to_numpy()
        & (on_cutout | is_dark)
    )
    flag = np.select([is_known, is_candidate], [KNOWN, CANDIDATE], NONE)
    return pd.DataFrame(
        {
            "movingObjectFlag": flag.astype(np.int32),
            "eclipticLatitude": ecliptic_latitude(ra, dec).astype(np.float32),
        }
    )


@topic_filter(topic="moving-candidate", max_pass_fraction=0.3)
def moving_candidate(
    moving_object_flag: pd.Series,
    reliability: pd.Series,
    snr: pd.Series,
    ecliptic_latitude: pd.Series,
) -> pd.Series:
    """For those who link tracklets: real single detections on empty sky near the ecliptic."""
    return all_of(
        moving_object_flag == CANDIDATE,
        is_reliable(reliability, at_least=0.65),
        snr >= 5.0,
        ecliptic_latitude.abs() <= 30.0,
    )
