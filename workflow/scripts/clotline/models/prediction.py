"""What a trained LSTM says of studies, as tables beside the truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from scipy.special import expit

from clotline.feature_sets import models_of, split_lstm_name
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS
from clotline.loading.study_loader import FeatureSequences
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_fabric
from clotline.models.lstm import SliceLSTM, load_lstm
from clotline.models.sequence import SliceSequence
from clotline.sections.lstm import LSTMSection


def predict_studies(
    model: SliceLSTM | SliceSequence, sequences: FeatureSequences, fabric: Fabric
) -> list[np.ndarray]:
    """Probabilities of every study, float64: (slices,) at the image level, (9,) at the study level.

    Of a joint network (slices, 10): the nine labels of the study, at each of its slices the same,
    and the slice's own.

    In float32 all logits above 17 would give 1. Studies are read one at a time, so that a study's
    bits never depend on its neighbours in a batch.
    """
    model = fabric.setup_module(model)
    model.eval()
    # The study level gives one row, that of the one study.
    axis = 0 if model.level == "study" else ()
    with torch.inference_mode():
        return [
            expit(model(studies).double().cpu().numpy()).squeeze(axis)
            for studies, _ in sequences.batches(1, fabric)
        ]


def predict_models(
    checkpoint_path: str | Path,
    network: str,
    slices: pd.DataFrame,
    studies: pd.DataFrame,
    features: list[str],
    gpus: int,
    threads: int,
) -> dict[str, pd.DataFrame]:
    """What one network of stage 2 says of some studies, beside their labels.

    Args:
        checkpoint_path: its checkpoint.
        network: its name, as in the configuration.
        slices: slices.parquet.
        studies: of `clotline.data.slice_table.locate_studies`, those to predict.
        features: features files, in the order of its feature set.
        gpus: GPUs that the job was given.
        threads: threads of the job.

    Returns:
        Each of its models, of `clotline.feature_sets.models_of`, to `image_level_table` or
        `study_level_table`.

    Raises:
        ClotlineError: a file cannot be read or does not fit.
    """
    level = split_lstm_name(network)[1]
    checkpoint = Checkpoint.load(checkpoint_path)
    section = LSTMSection.of_checkpoint(checkpoint.config, checkpoint_path)
    fabric = make_fabric(section.precision, gpus, threads)
    sequences = FeatureSequences(studies, features, level, slices[IMAGE_LABEL].to_numpy())
    model = load_lstm(checkpoint, level, checkpoint_path)
    probabilities = predict_studies(model, sequences, fabric)
    of_slices = of_studies = probabilities
    if level == "joint":
        of_slices = [both[:, -1] for both in probabilities]
        of_studies = [both[0, :-1] for both in probabilities]
    return {
        model: image_level_table(slices, studies, of_slices)
        if split_lstm_name(model)[1] == "image"
        else study_level_table(studies, of_studies)
        for model in models_of(network)
    }


def study_level_table(studies: pd.DataFrame, probabilities: list[np.ndarray]) -> pd.DataFrame:
    """Predictions of a study-level model beside the truth.

    Args:
        studies: of `clotline.data.slice_table.locate_studies`, one row per prediction.
        probabilities: for each study (9,) float.

    Returns:
        Study UID, ``split``, and ``<label>`` (probability) and ``<label>_true`` (0 or 1) for each
        of the nine labels.
    """
    table = studies[[STUDY_UID, "split"]].reset_index(drop=True)
    probabilities = np.stack(probabilities)
    for number, label in enumerate(STUDY_LABELS):
        table[label] = probabilities[:, number].astype(np.float64)
        table[f"{label}_true"] = studies[label].to_numpy(np.int8)
    return table


def image_level_table(
    slices: pd.DataFrame, studies: pd.DataFrame, probabilities: list[np.ndarray]
) -> pd.DataFrame:
    """Predictions of an image-level model beside the truth.

    Args:
        slices: slices.parquet.
        studies: of `clotline.data.slice_table.locate_studies`.
        probabilities: for each study (slices,) float.

    Returns:
        One row per slice of these studies: UIDs, ``split``, ``position_mm``, the image label's
        probability and, with the suffix ``_true``, its truth.
    """
    spans = zip(studies["first"], studies["count"], strict=True)
    table = slices.iloc[np.concatenate([np.arange(f, f + n) for f, n in spans])]
    truth = table[IMAGE_LABEL].to_numpy()
    table = table[[*UIDS, "split", "position_mm"]].reset_index(drop=True)
    table[IMAGE_LABEL] = np.concatenate(probabilities).astype(np.float64)
    table[f"{IMAGE_LABEL}_true"] = truth.astype(np.int8)
    return table
