"""What kind of transient a light curve is of, with calibrated probabilities."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from broker.science import Column, OnnxModel, load_onnx, science_module

CLASSES = ("agn", "flare-star", "kilonova", "microlensing", "supernova-ia", "variable-star")
"""In the order of the model's outputs."""

MIN_DETECTIONS = 3


@science_module(
    version="1.0.0",
    outputs=(
        Column("lightCurveClass", "string", "", f"The likeliest of {', '.join(CLASSES)}."),
        Column("classProbabilityAgn", "float32", "", "Probability of an active nucleus."),
        Column("classProbabilityFlareStar", "float32", "", "Probability of a flare star."),
        Column("classProbabilityKilonova", "float32", "", "Probability of a kilonova."),
        Column("classProbabilityMicrolensing", "float32", "", "Probability of microlensing."),
        Column("classProbabilitySupernova", "float32", "", "Probability of a supernova."),
        Column("classProbabilityVariable", "float32", "", "Probability of a pulsating star."),
    ),
    setup=partial(load_onnx, Path(__file__).with_name("model.onnx")),
)
def light_curve_class(
    lc_count_g: pd.Series,
    lc_count_r: pd.Series,
    lc_time_span: pd.Series,
    age_days: pd.Series,
    lc_reduced_chi2_g: pd.Series,
    lc_reduced_chi2_r: pd.Series,
    lc_stetson_g: pd.Series,
    lc_stetson_r: pd.Series,
    lc_skew_g: pd.Series,
    lc_skew_r: pd.Series,
    lc_beyond1_std_g: pd.Series,
    lc_beyond1_std_r: pd.Series,
    lc_cusum_g: pd.Series,
    lc_cusum_r: pd.Series,
    lc_eta_g: pd.Series,
    lc_eta_r: pd.Series,
    lc_mean_variance_g: pd.Series,
    lc_mean_variance_r: pd.Series,
    lc_excess_variance_g: pd.Series,
    lc_excess_variance_r: pd.Series,
    lc_percentile_ratio2010_g: pd.Series,
    lc_percentile_ratio2010_r: pd.Series,
    lc_linear_fit_chi2_g: pd.Series,
    lc_linear_fit_chi2_r: pd.Series,
    lc_roms_g: pd.Series,
    lc_roms_r: pd.Series,
    decline_rate: pd.Series,
    days_since_peak: pd.Series,
    colour_gr: pd.Series,
    microlensing_chi2_per_dof: pd.Series,
    microlensing_delta_chi2: pd.Series,
    drw_log_tau: pd.Series,
    drw_log_bayes_factor: pd.Series,
    early_supernova_score: pd.Series,
    fireball_age: pd.Series,
    flare_significance: pd.Series,
    *,
    model: OnnxModel,
) -> pd.DataFrame:
    """Tell the class of each alert from its light curve alone.

    Parameters
    ----------
    lc_count_g, lc_count_r, lc_time_span : pd.Series
        From `light_curve_features`, as all that follow with lc in front.
    age_days : pd.Series
        Time since the first detection. [d]
    decline_rate, days_since_peak : pd.Series
        From `decline`. [mag / d], [d]
    colour_gr : pd.Series
        From `colour`. [mag]
    microlensing_chi2_per_dof, microlensing_delta_chi2 : pd.Series
        From `microlensing`.
    drw_log_tau, drw_log_bayes_factor : pd.Series
        From `agn_variability`.
    early_supernova_score, fireball_age : pd.Series
        From `early_supernova`.
    flare_significance : pd.Series
        From `flare`.
    model : OnnxModel
        Boosted trees on these columns in this order.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        Null with fewer than three detections in both g and r.

    Notes
    -----
    Probabilities are those among the six classes if all are equally frequent: with other rates,
    multiply by them. Place, host and image are not used.
    """
    columns = [value for name, value in locals().items() if name != "model"]
    # A temperature calibrates (Guo et al. 2017, arXiv:1706.04599); it is kept in the file.
    sharpness = 1.0 / float(model.metadata["temperature"])
    power = model(*columns)["probabilities"].astype(np.float64) ** sharpness
    probability = power / power.sum(axis=1, keepdims=True)
    is_known = ((lc_count_g >= MIN_DETECTIONS) | (lc_count_r >= MIN_DETECTIONS)).to_numpy()
    best = np.array(CLASSES, dtype=object)[probability.argmax(axis=1)]
    best[~is_known] = None
    values = np.where(is_known[:, None], probability, np.nan).astype(np.float32)
    outputs = [column.name for column in light_curve_class.outputs[1:]]
    result = pd.DataFrame(values, columns=outputs)
    result.insert(0, "lightCurveClass", best)
    return result
