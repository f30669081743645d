"""Stored slices and features to the batches that networks are trained on."""
