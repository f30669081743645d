"""Reads metrics files back, and says how a model stands against its baseline."""

import json
from collections.abc import Iterable
from pathlib import Path

from clotline.evaluation.intervals import describe_estimate


def read_metrics(paths: Iterable[str | Path]) -> dict[str, dict]:
    """Model name (the file's stem) to its metrics, of `clotline.evaluation.metrics.evaluate`."""
    return {Path(path).stem: json.loads(Path(path).read_text(encoding="utf-8")) for path in paths}


def describe_baseline(baseline: dict) -> str:
    """``position only: AUROC 0.801 (0.790–0.812)``, or why there is no baseline.

    Args:
        baseline: the dict of `clotline.evaluation.baselines.beside_baseline`.
    """
    if "reason" in baseline:
        return f"no baseline: {baseline['reason']}"
    return f"{baseline['name']}: AUROC {describe_estimate(baseline['auroc'])}"


def describe_verdict(baseline: dict) -> str:
    """Whether the model beats its baseline, with the difference; an empty text without one.

    Args:
        baseline: the dict of `clotline.evaluation.baselines.beside_baseline`.
    """
    if "reason" in baseline:
        return ""
    difference = describe_estimate(baseline["difference"])
    beats = "beats" if baseline["beaten"] else "is not shown to beat"
    return f"{beats} {baseline['name']}: difference {difference}"
