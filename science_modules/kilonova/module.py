"""Kilonovae: what fades by a third of a magnitude a day and reddens, not far from a galaxy."""

import numpy as np
import pandas as pd
from scipy.special import ndtr

from broker.science import Column, science_module, topic_filter
from broker.science.cuts import (
    all_of,
    is_first_seen_within,
    is_off_the_plane,
    is_positive,
    is_reliable,
)


@science_module(
    version="1.0.0",
    outputs=(
        Column(
            "kilonovaFading", "float32", "", "Probability that it fades by 0.3 mag / d or more."
        ),
        Column("kilonovaScore", "float32", "", "The same times that of being red: 0 to 1."),
    ),
)
def kilonova(
    decline_rate: pd.Series,
    decline_rate_err: pd.Series,
    colour_gr: pd.Series,
    colour_gr_err: pd.Series,
    age_days: pd.Series,
    context_class: pd.Series,
    *,
    min_rate_mag_per_day: float = 0.3,
    min_colour_mag: float = 0.0,
    max_age_days: float = 14.0,
) -> pd.DataFrame:
    """Score how fast each source fades and how red it is.

    Parameters
    ----------
    decline_rate, decline_rate_err : pd.Series
        From `decline`. [mag / d]
    colour_gr, colour_gr_err : pd.Series
        From `colour`. [mag]
    age_days : pd.Series
        Time since the first detection. [d]
    context_class : pd.Series
        From `context`.
    min_rate_mag_per_day : float
        Supernovae stay below it: Andreoni et al. 2021, ApJ 918 63. [mag / d]
    min_colour_mag : float
        g - r of AT2017gfo from its second day on was above it: Villar et al. 2017, ApJ 851 L21.
    max_age_days : float
        What is older is none. [d]

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) where there is no decline rate; the score is 0 for known stars, asteroids and
        old sources, and a colour that is not known counts as even chances, 0.5.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        fading = ndtr((decline_rate.to_numpy("f8") - min_rate_mag_per_day) / decline_rate_err)
        red = ndtr((colour_gr.to_numpy("f8") - min_colour_mag) / colour_gr_err)
    known = colour_gr.notna().to_numpy()
    possible = context_class.isin(["hosted", "hostless", "unknown"]) & (age_days <= max_age_days)
    score = np.asarray(fading) * np.where(known, red, 0.5)
    is_rated = decline_rate.notna().to_numpy()
    columns = {
        "kilonovaFading": np.where(is_rated, fading, np.nan),
        "kilonovaScore": np.where(is_rated, np.where(possible, score, 0.0), np.nan),
    }
    return pd.DataFrame(columns).astype(np.float32)


@topic_filter(topic="kilonova-candidate", max_pass_fraction=0.01)
def kilonova_candidate(
    kilonova_score: pd.Series,
    reliability: pd.Series,
    is_negative: pd.Series,
    is_dipole: pd.Series,
    n_dia_sources: pd.Series,
    age_days: pd.Series,
    ra: pd.Series,
    dec: pd.Series,
) -> pd.Series:
    """For counterparts of gravitational waves: new, fading by 0.3 mag a day, red, off the plane."""
    return all_of(
        kilonova_score >= 0.4,
        n_dia_sources >= 3,
        is_reliable(reliability),
        is_positive(is_negative, is_dipole),
        is_first_seen_within(age_days, days=14.0),
        is_off_the_plane(ra, dec, b_deg=10.0),
    )
