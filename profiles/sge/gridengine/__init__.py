"""Snakemake jobs on Grid Engine: what submit.py and status.py share.

Standard library alone, so that the commands start fast and under any Python. State lies in the
working directory's ``.clotline/gridengine``.
"""
