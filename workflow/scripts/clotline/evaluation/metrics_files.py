"""Reads metrics files back."""

import json
from collections.abc import Iterable
from pathlib import Path


def read_metrics(paths: Iterable[str | Path]) -> dict[str, dict]:
    """Model name (the file's stem) to its figures, of `clotline.evaluation.metrics.evaluate`."""
    return {Path(path).stem: json.loads(Path(path).read_text(encoding="utf-8")) for path in paths}
