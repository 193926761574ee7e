"""How unlike all known kinds of light curves one is: distance, and isolation forests."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from broker.science import Column, OnnxModel, load_onnx, science_module

MIN_DETECTIONS = 3


@science_module(
    version="1.1.0",
    outputs=(
        Column("anomalyScore", "float32", "", "0.5 is usual, towards 1 is isolated soon."),
        Column("anomalyRank", "float32", "", "Part of usual light curves that score less, 0 to 1."),
        Column("anomalyDistance", "float32", "", "From the nearest known kind, in its sigmas."),
        Column("anomalyDistanceRank", "float32", "", "Part of usual ones that are nearer, 0 to 1."),
    ),
    setup=partial(load_onnx, Path(__file__).with_name("model.onnx")),
)
def anomaly_score(
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
    """Tell how far each light curve is from those of known kinds, and how few cuts part them.

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
        Axes and an isolation forest for each known kind, on these columns in this order.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) with fewer than three detections in both g and r. A single column that is not
        known counts as its median.

    Notes
    -----
    Liu, Ting & Zhou 2008, Proc. ICDM 413, eq. 2; the lowest of all kinds' scores counts: Gupta,
    Muthukrishna & Lochner 2025, RASTI 4 rzae054. The distance is that of Mahalanobis (1936) on
    normal scores, from the kind that is nearest, with the covariance shrunk (Ledoit & Wolf 2004,
    J. Multivar. Anal. 88, 365). The ranks are those among light curves that were not trained on,
    interpolated between quantiles kept in the file.
    """
    columns = [value for name, value in locals().items() if name != "model"]
    is_known = ((lc_count_g >= MIN_DETECTIONS) | (lc_count_r >= MIN_DETECTIONS)).to_numpy()
    said = model(*columns)
    answer = {}
    for output, quantiles, name in (
        ("scores", "quantiles", "anomalyScore"),
        ("distances", "distanceQuantiles", "anomalyDistance"),
    ):
        # An alert is as anomalous as the class that fits it best says.
        value = said[output].min(axis=1).astype(np.float64)
        known = np.array(model.metadata[quantiles].split(), dtype=np.float64)
        rank = np.interp(value, known, np.linspace(0.0, 1.0, known.size))
        answer[name] = np.where(is_known, value, np.nan)
        rank_name = "anomalyRank" if name == "anomalyScore" else f"{name}Rank"
        answer[rank_name] = np.where(is_known, rank, np.nan)
    return pd.DataFrame(answer).astype(np.float32)
