"""Decision curves, predictive values and sample sizes of all models as tables."""

from collections.abc import Iterator

import pandas as pd

_CURVE = (
    "net_benefit", "net_benefit_low", "net_benefit_high", "treat_all", "gain", "gain_low",
    "gain_high",
)  # fmt: skip
_ENDS = {"": "value", "_low": "low", "_high": "high"}
_SIZE = ("metric", "value", "studies", "half_width", "expected", "wished", "needed", "reason")


def with_decisions(metrics: dict[str, dict]) -> Iterator[tuple[str, str, dict]]:
    """Model, target and metrics of the targets of PE in the study.

    Args:
        metrics: model name to the dict of `clotline.evaluation.metrics.evaluate`. Of an older
            Clotline they have none of this and are passed over.
    """
    for model, of_model in metrics.items():
        for target, measured in of_model["targets"].items():
            if "decision_curve" in measured:
                yield model, target, measured


def decision_curves_table(metrics: dict[str, dict]) -> pd.DataFrame:
    """One row a model and threshold, with the columns of `_CURVE`; treating none is worth 0.

    Args:
        metrics: as for `with_decisions`.
    """
    parts = []
    for model, target, measured in with_decisions(metrics):
        curve = measured["decision_curve"]
        part = pd.DataFrame({"threshold": curve.get("thresholds", [None])})
        for name in _CURVE:
            part[name] = curve.get(name)
        part = part.assign(reason=curve.get("reason", ""))
        part.insert(0, "model", model)
        part.insert(1, "target", target)
        parts.append(part)
    columns = ["model", "target", "threshold", *_CURVE, "reason"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return table.astype(dict.fromkeys(["threshold", *_CURVE], "float64"))


def predictive_values_table(metrics: dict[str, dict]) -> pd.DataFrame:
    """One row a model, operating point and prevalence: ``ppv`` and ``npv`` with their intervals.

    Args:
        metrics: as for `with_decisions`.
    """
    rows = [
        {"model": model, "target": target, "operating_point": point}
        | {"prevalence": values["prevalence"]}
        | {
            rate + ending: values[rate][key]
            for rate in ("ppv", "npv")
            for ending, key in _ENDS.items()
        }
        | {"reason": values["ppv"]["reason"] or values["npv"]["reason"]}
        for model, target, measured in with_decisions(metrics)
        for point, of_point in measured["predictive_values"].items()
        for values in of_point
    ]
    numbers = ["prevalence", *(rate + ending for rate in ("ppv", "npv") for ending in _ENDS)]
    columns = ["model", "target", "operating_point", *numbers, "reason"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(numbers, "float64"))


def sample_size_table(metrics: dict[str, dict]) -> pd.DataFrame:
    """One row a model and metric, with what `clotline.evaluation.sample_size.sample_size` says.

    Args:
        metrics: as for `with_decisions`.
    """
    rows = [
        {"model": model, "target": target} | size
        for model, target, measured in with_decisions(metrics)
        for size in measured["sample_size"]
    ]
    table = pd.DataFrame(rows, columns=["model", "target", *_SIZE])
    numbers = dict.fromkeys(("value", "half_width", "expected", "wished"), "float64")
    return table.astype(numbers | dict.fromkeys(("studies", "needed"), "Int64"))
