import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from builders import checkpoint_of, cnn_section, lstm_section, write_noise, write_slices

from clotline.data.lone_shard import stored_slices
from clotline.errors import ClotlineError
from clotline.evaluation.validation import validate, with_truth
from clotline.feature_sets import split_lstm_name
from clotline.grid import PUBLISHED
from clotline.job.phases import Phases
from clotline.labels import (
    IMAGE_LABEL,
    SERIES_UID,
    SOP_UID,
    STUDY_LABELS,
    STUDY_UID,
    UIDS,
    UNKNOWN,
)
from clotline.models.backbones import build_classifier
from clotline.models.bundle import Bundle, preprocessing
from clotline.models.inference import (
    apply_models,
    predictions_by_slice,
    predictions_by_study,
)
from clotline.models.lstm import build_lstm

SLICES = pd.DataFrame(
    {
        STUDY_UID: ["a", "a", "b"],
        SERIES_UID: ["a.1", "a.1", "b.7"],
        SOP_UID: ["1", "2", "3"],
        "position_mm": [0.0, 2.5, 0.0],
    }
)


def study_table(*negative):
    table = pd.DataFrame({STUDY_UID: ["a", "b"]}).assign(**dict.fromkeys(STUDY_LABELS, 0.1))
    return table.assign(negative_exam_for_pe=list(negative))


def image_table(*probabilities):
    return SLICES.assign(**{IMAGE_LABEL: list(probabilities)})


PREDICTIONS = {
    "resnext50-image": image_table(0.1, 0.2, 0.3),
    "resnext50-study": study_table(0.6, 0.95),
    "combined-image": image_table(0.4, 0.5, 0.6),
    "combined-study": study_table(0.2, 0.3),
}


def test_each_study_has_a_row_a_model_with_pe_present_and_its_series():
    table = predictions_by_study(PREDICTIONS, SLICES)
    assert table[[STUDY_UID, SERIES_UID, "slices", "model"]].values.tolist() == [
        ["a", "a.1", 2, "resnext50-study"],
        ["b", "b.7", 1, "resnext50-study"],
        ["a", "a.1", 2, "combined-study"],
        ["b", "b.7", 1, "combined-study"],
    ]
    # (1 - negative exam)(1 - indeterminate)
    assert table["pe_present"].tolist() == pytest.approx([0.36, 0.045, 0.72, 0.63])
    # At 0.045, with each label about a PE at 0.1
    assert table["contradiction"].ne("").tolist() == [False, True, False, False]


def test_each_slice_has_a_column_a_model():
    table = predictions_by_slice(PREDICTIONS)
    assert list(table) == [
        *(STUDY_UID, SERIES_UID, SOP_UID, "position_mm", "resnext50-image", "combined-image")
    ]
    assert table["combined-image"].tolist() == [0.4, 0.5, 0.6]


def _network(width, level):
    section = lstm_section(precision="32-true")
    weights = build_lstm(width, section, level).state_dict()
    return checkpoint_of(section, weights, width)


@pytest.fixture
def bundle(tmp_path):
    """An unpacked bundle of untrained networks, two folds of one and a finetuned one among them."""
    torch.manual_seed(0)
    contents = {}
    for folder, levels in (
        ("", ("image", "study", "joint")),
        ("folds/0/", ("joint",)),
        ("folds/1/", ("joint",)),
    ):
        section = cnn_section(crop=64, input_size=32, precision="32-true")
        cnn = build_classifier(section)
        contents[f"{folder}cnn/resnet.pt"] = checkpoint_of(section, cnn.state_dict(), cnn.width)
        for level in levels:
            name = f"{folder}lstm/resnet-{level}.pt"
            contents[name] = _network(cnn.width, level)
    # Its own copy: another CNN, and another network, than those that it was.
    cnn = build_classifier(cnn_section(crop=64, input_size=32, precision="32-true"))
    section = cnn_section(crop=64, input_size=32, precision="32-true")
    finetuned = "finetuned/resnet-finetuned-joint"
    contents[f"{finetuned}/cnn.pt"] = checkpoint_of(section, cnn.state_dict(), cnn.width)
    contents[f"{finetuned}/lstm.pt"] = _network(cnn.width, "joint")
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        content.save(tmp_path / name)
    ensembles = {"all-study": ["resnet-study", "resnet-joint-folds-study"]}
    manifest = {"members": list(contents), "features": {"resnet": ["resnet"]}}
    manifest["preprocessing"] = preprocessing(PUBLISHED)
    return Bundle(tmp_path, manifest | {"config": {"ensembles": ensembles}})


def check_validation(folder, bundle, found, slices):
    """Every model of the bundle is evaluated on a cohort, from what was written of it."""
    predictions_by_study(found, slices).to_csv(folder / "studies.csv", index=False)
    predictions_by_slice(found).to_csv(folder / "slices.csv", index=False)
    truth = slices[[STUDY_UID]].drop_duplicates().assign(pe_present=1, part="held out")
    truth = truth.assign(**dict.fromkeys(STUDY_LABELS, UNKNOWN))
    of_slices = slices[list(UIDS)].assign(**{IMAGE_LABEL: [0, 1, 1]})
    tables = with_truth(folder / "studies.csv", folder / "slices.csv", truth, of_slices)
    assert sorted(tables) == sorted(bundle.models)
    for name, table in tables.items():
        level = split_lstm_name(name)[1]
        told = validate(table, level, {"targets": {}}, {}, 100, 0)["targets"]
        expected = ["pe_present"] if level == "study" else [IMAGE_LABEL, "pe_present_by_max"]
        assert list(told) == expected


def test_slices_of_another_grid_than_the_models_are_refused(tmp_path, bundle):
    shard = tmp_path / "shard-new.h5"
    write_slices(shard, np.zeros((3, 384, 384), np.int16), [0, 0, 0])
    with pytest.raises(ClotlineError) as caught:
        apply_models(bundle, shard, stored_slices(shard), tmp_path, 0, 1, Phases())
    message = str(caught.value)
    assert "shard-new.h5 are of 384 × 384 pixels" in message
    assert "trained on 256 × 256 pixels: delete that file" in message


def test_what_models_say_of_new_studies_stands_beside_no_truth(tmp_path, bundle):
    shard = tmp_path / "shard-new.h5"
    write_noise(shard, 3)
    slices = stored_slices(shard)
    found = apply_models(bundle, shard, slices, tmp_path, gpus=0, threads=1, phases=Phases())
    assert list(found["resnet-image"]) == [*UIDS, "position_mm", IMAGE_LABEL]
    assert list(found["resnet-study"]) == [STUDY_UID, *STUDY_LABELS]
    assert found["resnet-image"][SOP_UID].tolist() == slices[SOP_UID].tolist()
    assert found["resnet-image"][IMAGE_LABEL].between(0, 1).all()
    assert found["resnet-study"][list(STUDY_LABELS)].stack().between(0, 1).all()
    assert list(found) == bundle.models
    # A joint network gives both; its folds are their mean, and an ensemble that of its members.
    joint = [f"resnet-joint-{level}" for level in ("image", "study")]
    assert [list(found[name]) for name in joint] == [
        list(found["resnet-image"]),
        list(found["resnet-study"]),
    ]
    of_folds = [
        apply_models(
            Bundle(bundle.folder / f"folds/{fold}", bundle.manifest | manifest),
            *(shard, slices, tmp_path),
            gpus=0,
            threads=1,
            phases=Phases(),
        )
        for fold in range(2)
        for manifest in [
            {"members": ["cnn/resnet.pt", "lstm/resnet-joint.pt"], "config": {}},
        ]
    ]
    for name, output in zip(joint, (IMAGE_LABEL, "central_pe"), strict=True):
        folds = [fold[name][output] for fold in of_folds]
        assert (folds[0] - folds[1]).abs().min() > 1e-7
        folded = found[name.replace("joint-", "joint-folds-")][output]
        assert folded.tolist() == pytest.approx(((folds[0] + folds[1]) / 2).tolist(), abs=1e-12)
    # A finetuned network reads the features of its own CNN.
    finetuned = bundle.folder / "finetuned/resnet-finetuned-joint"
    (bundle.folder / "alone/lstm").mkdir(parents=True)
    (bundle.folder / "alone/cnn").mkdir()
    shutil.copy(finetuned / "cnn.pt", bundle.folder / "alone/cnn/resnet.pt")
    shutil.copy(finetuned / "lstm.pt", bundle.folder / "alone/lstm/resnet-joint.pt")
    manifest = {"members": ["cnn/resnet.pt", "lstm/resnet-joint.pt"], "config": {}}
    alone = Bundle(bundle.folder / "alone", bundle.manifest | manifest)
    alone = apply_models(alone, shard, slices, tmp_path, gpus=0, threads=1, phases=Phases())
    for level in ("image", "study"):
        expected = alone[f"resnet-joint-{level}"]
        pd.testing.assert_frame_equal(found[f"resnet-finetuned-joint-{level}"], expected)
    check_validation(tmp_path, bundle, found, slices)
    members = [found[name]["central_pe"] for name in ("resnet-study", "resnet-joint-folds-study")]
    mean = (members[0] + members[1]) / 2
    assert found["all-study"]["central_pe"].tolist() == pytest.approx(mean.tolist(), abs=1e-12)
