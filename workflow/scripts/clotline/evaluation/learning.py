"""Whether a model learned: what its training's history and its interval say against it.

This module decides, for the job's log, metrics.csv, the report and the end of the demo.
"""

from collections.abc import Mapping

import pandas as pd

#: A loss has jumped if it grows by this factor from one epoch to a later one.
JUMP = 10

#: A training must bring the loss on its own split below this share of the base rates' loss.
FITTED = 0.98

#: A learning rate below this share of its highest value has come to its end.
ENDED = 0.01


def training_warnings(history: pd.DataFrame) -> list[str]:
    """What a training's history says against it; nothing if it went well.

    Args:
        history: of `clotline.models.training.Fitted`.

    Returns:
        Sentences with the numbers that they rest on.
    """
    kept = history[history["kept"] == 1].iloc[0]
    epochs, epoch = len(history), int(kept["epoch"])
    warnings = []
    if kept["valid_loss"] >= kept["valid_base_loss"]:
        warnings.append(
            f"the validation loss of the kept epoch, {kept['valid_loss']:.3f}, is no lower than "
            f"that of the labels' base rates, {kept['valid_base_loss']:.3f}"
        )
    if kept["train_loss"] >= FITTED * kept["train_base_loss"]:
        warnings.append(
            f"it does not fit its own training split: its loss there is {kept['train_loss']:.3f}, "
            f"and that of the labels' base rates {kept['train_base_loss']:.3f}"
        )
    for split in ("train", "valid"):
        # Before the first epoch a network is about as good as base rates.
        before = (
            history[f"{split}_loss"].cummin().shift(fill_value=history[f"{split}_base_loss"][0])
        )
        jumped = history[history[f"{split}_loss"] > JUMP * before]
        if len(jumped):
            first = jumped.iloc[0]
            warnings.append(
                f"the {split} loss jumped to {first[f'{split}_loss']:.4g} in epoch "
                f"{int(first['epoch'])}, from {before[jumped.index[0]]:.3f} at best before"
            )
    best = int(history["epoch"][history["valid_loss"].idxmin()])
    if epochs > 1 and best == 1:
        warnings.append(f"its best epoch is the first of {epochs}: all later ones were worse")
    # A schedule that ends at a rate of zero ends there by intention.
    ended = history["lr"].iloc[-1] < ENDED * history["lr"].max()
    if epochs > 1 and best == epoch == epochs and not ended:
        warnings.append(f"its best epoch is the last of {epochs}: more epochs might be better")
    return warnings


def chance_warning(auroc: dict) -> str | None:
    """The warning that an AUROC's 95% interval contains 0.5 or lies below; None where it does not.

    Args:
        auroc: dict of `clotline.evaluation.intervals.Estimate`.
    """
    low, high = auroc["low"], auroc["high"]
    if low is None or high is None or low > 0.5:
        return None
    interval = f"the 95% interval of its AUROC, {low:.3f} to {high:.3f},"
    if high < 0.5:
        return f"worse than chance: {interval} lies below 0.5"
    return f"no better than chance: {interval} has 0.5"


def warnings_table(
    histories: Mapping[str, pd.DataFrame], metrics: Mapping[str, dict]
) -> pd.DataFrame:
    """All that speaks against the networks of a run.

    Args:
        histories: network, a backbone or an LSTM, to its training's history.
        metrics: model to the dict of `clotline.evaluation.metrics.evaluate`.

    Returns:
        One row per warning: ``model`` (or backbone), ``from`` (training or test) and ``warning``.
        Of a model's targets only the first is tested: PE in the study, or on the slice.
    """
    rows = [
        (name, "training", warning)
        for name, history in histories.items()
        for warning in training_warnings(history)
    ]
    for name, model in metrics.items():
        first = next(iter(model["targets"].values()))
        if warning := chance_warning(first["auroc"]):
            rows.append((name, "test", warning))
    return pd.DataFrame(rows, columns=["model", "from", "warning"])
