"""Predictions to metrics with confidence intervals."""
