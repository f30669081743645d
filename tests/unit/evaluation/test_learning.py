"""What speaks against a training, case by case."""

import pandas as pd
import pytest

from clotline.evaluation.learning import chance_warning, training_warnings, warnings_table

AUROC = {"value": 0.7, "low": 0.6, "high": 0.8}


def history(train=(0.65, 0.5, 0.4, 0.3), valid=(0.66, 0.6, 0.5, 0.55), kept=3, base=0.69, lr=0.1):
    return pd.DataFrame(
        {
            "epoch": range(1, len(train) + 1),
            "lr": lr,
            "train_loss": train,
            "valid_loss": valid,
            "train_base_loss": base,
            "valid_base_loss": base,
            "kept": [int(epoch == kept) for epoch in range(1, len(train) + 1)],
        }
    )


def test_a_training_that_went_well_has_no_warning():
    assert training_warnings(history()) == []


def test_validation_no_better_than_base_rates():
    (warning,) = training_warnings(history(valid=(0.9, 0.8, 0.7, 0.71)))
    assert "validation loss of the kept epoch, 0.700, is no lower" in warning
    assert "base rates, 0.690" in warning


def test_the_kept_epoch_counts_not_the_best():
    assert not training_warnings(history(valid=(0.66, 0.6, 0.5, 0.68), kept=4))
    assert training_warnings(history(valid=(0.66, 0.6, 0.5, 0.7), kept=4))


@pytest.mark.parametrize(("loss", "told"), [(0.68, True), (0.66, False)])
def test_a_network_that_does_not_fit_its_own_training_split(loss, told):
    warnings = training_warnings(history(train=(0.69, 0.69, loss, loss)))
    assert [("does not fit its own training split" in w) for w in warnings] == [True] * told


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_loss_that_jumps_tenfold(split):
    losses = {split: (0.6, 0.55, 5.6, 0.5), "valid" if split == "train" else "train": (0.6,) * 4}
    warnings = training_warnings(history(**losses, kept=4))
    (jump,) = (w for w in warnings if "jumped" in w)
    assert jump == f"the {split} loss jumped to 5.6 in epoch 3, from 0.550 at best before"
    losses[split] = (0.6, 0.55, 5.4, 0.5)
    assert not [w for w in training_warnings(history(**losses, kept=4)) if "jumped" in w]


def test_the_first_epoch_jumps_from_what_base_rates_give():
    warnings = training_warnings(history(valid=(143.7, 0.6, 0.5, 0.55)))
    assert warnings == ["the valid loss jumped to 143.7 in epoch 1, from 0.690 at best before"]


def test_the_best_epoch_is_the_first():
    (warning,) = training_warnings(history(valid=(0.5, 0.6, 0.6, 0.6), train=(0.5,) * 4, kept=1))
    assert warning == "its best epoch is the first of 4: all later ones were worse"


def test_the_best_epoch_is_the_last():
    (warning,) = training_warnings(history(valid=(0.66, 0.6, 0.55, 0.5), kept=4))
    assert warning == "its best epoch is the last of 4: more epochs might be better"


def test_a_schedule_that_comes_to_its_end_may_end_at_the_best_epoch():
    ended = history(valid=(0.66, 0.6, 0.55, 0.5), kept=4, lr=(0.01, 0.1, 0.05, 1e-6))
    assert training_warnings(ended) == []


def test_of_a_single_epoch_being_the_best_says_nothing():
    assert training_warnings(history(train=(0.5,), valid=(0.5,), kept=1)) == []


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(0.5, 0.7, "no better"), (0.3, 0.5, "no better"), (0.3, 0.49, "worse"), (0.51, 0.7, None)],
)
def test_an_interval_that_does_not_lie_above_one_half_is_told(low, high, told):
    warning = chance_warning({"low": low, "high": high})
    assert (warning and warning.partition(" than chance: ")[0]) == told


def test_without_an_interval_nothing_is_said_of_chance():
    assert chance_warning({"low": None, "high": None}) is None


def test_the_table_names_network_and_source():
    metrics = {
        "combined-study": {"targets": {"pe_present": {"auroc": AUROC | {"low": 0.4}}}},
        "combined-image": {"targets": {"pe_present_on_image": {"auroc": AUROC}}},
    }
    bad = history(valid=(0.9, 0.8, 0.7, 0.71))
    table = warnings_table({"resnext50": bad, "combined-study": history()}, metrics)
    assert table["model"].tolist() == ["resnext50", "combined-study"]
    assert table["from"].tolist() == ["training", "test"]
    assert list(warnings_table({}, {})) == ["model", "from", "warning"]
