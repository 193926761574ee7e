"""The contract for those who add science: modules, filters, and what runs and checks them."""

from broker.alerts.columns import Column
from broker.science.compatibility import wrap_pandas_udf
from broker.science.contract import ScienceModule, TopicFilter, science_module, topic_filter
from broker.science.cutouts import Cutouts
from broker.science.light_curves import LightCurves
from broker.science.models import OnnxModel, load_onnx, load_sklearn
from broker.science.registry import Contributions, find_contributions, load_module
from broker.science.runner import Outcome, Runner
from broker.science.samples import run_module, sample_alerts

__all__ = [
    "Column",
    "Contributions",
    "Cutouts",
    "LightCurves",
    "OnnxModel",
    "Outcome",
    "Runner",
    "ScienceModule",
    "TopicFilter",
    "find_contributions",
    "load_module",
    "load_onnx",
    "load_sklearn",
    "run_module",
    "sample_alerts",
    "science_module",
    "topic_filter",
    "wrap_pandas_udf",
]
