"""Depth estimators of transformers, behind the protocol of `depth.estimate`."""

from depth.estimators.load import load_depth_estimator
from depth.estimators.model import LoadedEstimator

__all__ = ["LoadedEstimator", "load_depth_estimator"]
