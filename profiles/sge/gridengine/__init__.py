"""Snakemake jobs on Grid Engine: what submit.py, status.py and cancel.py share.

Standard library alone, so that the commands start fast and under any Python. State lies in the
working directory's ``.clotline/gridengine``.
"""
