"""What an alert's place says about it: on a star, in a galaxy, nowhere, or a known asteroid."""

import numpy as np
import pandas as pd

from broker.science import Column, science_module, topic_filter
from broker.science.cuts import (
    all_of,
    is_bright,
    is_confirmed,
    is_in_context,
    is_positive,
    is_reliable,
)

CLASSES = ("solar-system", "variable-star", "hosted", "hostless", "unknown")


@science_module(
    version="1.0.0",
    outputs=(
        Column("contextClass", "string", "", f"What the place says: {', '.join(CLASSES)}."),
        Column("hostSeparation", "float32", "arcsec", "Distance from the host's centre."),
        Column(
            "hostOffset", "float32", "", "hostSeparation in units of the host's radius on the sky."
        ),
    ),
)
def context(
    ss_object_id: pd.Series,
    ss_separation: pd.Series,
    reference_match: pd.Series,
    reference_class: pd.Series,
    reference_separation: pd.Series,
    reference_size_arcsec: pd.Series,
    *,
    max_ss_separation_arcsec: float = 5.0,
) -> pd.DataFrame:
    """Tell the context of each alert from its match and its solar-system object.

    Parameters
    ----------
    ss_object_id, ss_separation : pd.Series
        Nearest known solar-system object, and its distance. [arcsec]
    reference_match : pd.Series
        1 found, 0 none there, -1 not searched.
    reference_class : pd.Series
        star, galaxy or variable.
    reference_separation, reference_size_arcsec : pd.Series
        Distance from the match, and its radius on the sky. [arcsec]
    max_ss_separation_arcsec : float
        An object farther than this from its prediction is another one; no distance given counts
        as near, because the survey has then made the association itself. [arcsec]

    Returns
    -------
    pd.DataFrame, n_alerts rows
        The class is never null: a catalogue that was not searched makes it "unknown". Stars,
        variable or not, are "variable-star": a star that alerts varies. The host's columns are
        null where there is no host, `hostOffset` too where its size is not known.
    """
    is_moving = ss_object_id.notna() & ~(ss_separation > max_ss_separation_arcsec)
    found = reference_match == 1
    is_star = found & reference_class.isin(["star", "variable"])
    is_hosted = found & (reference_class == "galaxy")
    conditions = [is_moving, is_star, is_hosted, reference_match == 0]
    has_host = is_hosted & ~is_moving
    separation = reference_separation.where(has_host)
    return pd.DataFrame(
        {
            "contextClass": np.select(conditions, CLASSES[:4], CLASSES[4]),
            "hostSeparation": separation,
            "hostOffset": separation / reference_size_arcsec.where(reference_size_arcsec > 0.0),
        }
    )


@topic_filter(topic="hosted-transient", max_pass_fraction=0.5)
def hosted_transient(
    context_class: pd.Series,
    reliability: pd.Series,
    is_negative: pd.Series,
    is_dipole: pd.Series,
    snr: pd.Series,
    n_dia_sources: pd.Series,
    age_days: pd.Series,
    *,
    min_age_days: float = 0.02,
) -> pd.Series:
    """For surveys of transients in galaxies: positive, real, S/N 7, still there half an hour on.

    Something that moves is no longer at the place of its first detection then.
    """
    return all_of(
        is_in_context(context_class, "hosted"),
        is_reliable(reliability),
        is_positive(is_negative, is_dipole),
        is_bright(snr),
        is_confirmed(n_dia_sources),
        age_days >= min_age_days,
    )


@topic_filter(topic="variable-star", max_pass_fraction=0.1)
def variable_star(
    context_class: pd.Series,
    reliability: pd.Series,
    psf_flux: pd.Series,
    template_flux: pd.Series,
    snr: pd.Series,
    *,
    min_relative_change: float = 0.5,
) -> pd.Series:
    """For those who follow large changes of stars: by half the reference flux or more."""
    return all_of(
        is_in_context(context_class, "variable-star"),
        is_reliable(reliability),
        is_bright(snr, at_least=10.0),
        template_flux > 0.0,
        psf_flux.abs() >= min_relative_change * template_flux,
    )


@topic_filter(topic="solar-system", max_pass_fraction=0.5)
def solar_system(
    context_class: pd.Series, ss_separation: pd.Series, reliability: pd.Series, snr: pd.Series
) -> pd.Series:
    """For astrometry of known asteroids and comets: within 2 arcsec of the prediction, S/N 10."""
    return all_of(
        is_in_context(context_class, "solar-system"),
        ss_separation <= 2.0,
        is_reliable(reliability, at_least=0.5),
        snr >= 10.0,
    )
