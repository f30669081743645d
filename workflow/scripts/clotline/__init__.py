"""Clotline: a two-stage detector of pulmonary embolism on CT pulmonary angiography."""
