"""Trained models applied to new studies."""

from pathlib import Path

import pandas as pd

from clotline.data.shards import POSITION, shard_grid
from clotline.data.slice_table import locate_studies
from clotline.errors import ClotlineError
from clotline.evaluation.ensembles import mean_of
from clotline.evaluation.predictions import PE_PRESENT, TRUE, contradictions, pe_present
from clotline.feature_sets import folds_model, split_lstm_name
from clotline.job.phases import Phases
from clotline.labels import IMAGE_LABEL, SERIES_UID, STUDY_LABELS, STUDY_UID, UIDS, UNKNOWN
from clotline.models.bundle import Bundle
from clotline.models.features import extract_shard_features
from clotline.models.prediction import predict_models


def apply_models(
    bundle: Bundle,
    shard: str | Path,
    slices: pd.DataFrame,
    folder: str | Path,
    gpus: int,
    threads: int,
    phases: Phases,
) -> dict[str, pd.DataFrame]:
    """What every model of a bundle says of the studies in a shard.

    Args:
        bundle: of `clotline.models.bundle.unpack_bundle`.
        shard: the new studies.
        slices: of `clotline.data.lone_shard.stored_slices`.
        folder: for the features, which nothing needs afterwards.
        gpus: GPUs that the job was given.
        threads: threads of the job.
        phases: counts the time of each backbone and of stage 2.

    Returns:
        Model to its predictions, as of `clotline.models.prediction.predict_models` but without
        the truth.

    Raises:
        ClotlineError: a file cannot be read, the slices have another form than those that the
            networks were trained on, or a network gives features that are no numbers.
    """
    if (there := shard_grid(shard)) != bundle.grid:
        raise ClotlineError(
            f"the slices of {shard} are of {there}, and the models were trained on {bundle.grid}: "
            "delete that file and run the same target again"
        )
    slices = slices.assign(split="new")
    plan = slices[[STUDY_UID, "split"]].drop_duplicates()
    studies = locate_studies(slices, plan.assign(**dict.fromkeys(STUDY_LABELS, UNKNOWN)))

    def apply(networks: Bundle) -> dict[str, pd.DataFrame]:
        return _apply_networks(networks, shard, slices, studies, folder, gpus, threads, phases)

    predictions, of_folds = apply(bundle), [apply(fold) for fold in bundle.folds]
    for model in of_folds[0] if of_folds else ():
        tables = {f"fold {number}": fold[model] for number, fold in enumerate(of_folds)}
        predictions[folds_model(model)] = mean_of(tables)
    for network in bundle.finetuned:
        cnn, lstm = (bundle.finetuned_checkpoint(network, part) for part in ("cnn", "lstm"))
        (backbone,) = bundle.features(network)
        features = str(Path(folder, f"{network}.h5"))
        with phases(f"features of {network}"):
            extract_shard_features(cnn, shard, features, backbone, gpus, threads)
        with phases("stage 2"):
            said = predict_models(lstm, network, slices, studies, [features], gpus, threads)
        predictions |= _without_truth(said)
        # Features of many studies are large.
        Path(features).unlink()
    for name, members in bundle.ensembles.items():
        predictions[name] = mean_of({member: predictions[member] for member in members})
    return predictions


def _apply_networks(
    bundle: Bundle,
    shard: str | Path,
    slices: pd.DataFrame,
    studies: pd.DataFrame,
    folder: str | Path,
    gpus: int,
    threads: int,
    phases: Phases,
) -> dict[str, pd.DataFrame]:
    """What the networks that were trained on train say, or those of a fold."""
    files = {}
    for name in bundle.backbones:
        files[name] = str(Path(folder, f"{name}.h5"))
        checkpoint = bundle.checkpoint("cnn", name)
        with phases(f"features of {name}"):
            extract_shard_features(checkpoint, shard, files[name], name, gpus, threads)
    predictions = {}
    for name in bundle.lstms:
        features = [files[backbone] for backbone in bundle.features(name)]
        checkpoint = bundle.checkpoint("lstm", name)
        with phases("stage 2"):
            said = predict_models(checkpoint, name, slices, studies, features, gpus, threads)
        predictions |= _without_truth(said)
    return predictions


def _without_truth(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Predictions of new studies, of which nobody knows what is true."""
    return {
        model: table.drop(columns=[*(name for name in table if name.endswith(TRUE)), "split"])
        for model, table in tables.items()
    }


def predictions_by_study(
    predictions: dict[str, pd.DataFrame], slices: pd.DataFrame
) -> pd.DataFrame:
    """The study-level models' probabilities, for people to read.

    Args:
        predictions: of `apply_models`.
        slices: of `clotline.data.lone_shard.stored_slices`.

    Returns:
        One row per study and model: study and series UID, number of ``slices``, ``model``,
        ``pe_present``, the nine study labels, and ``contradiction``: the label about a PE that is
        more probable than PE itself, if there is one.
    """
    series = slices.groupby(STUDY_UID, sort=False)[SERIES_UID].agg(["first", "size"]).reset_index()
    series.columns = [STUDY_UID, SERIES_UID, "slices"]
    tables = [
        series.merge(
            table.assign(
                model=name,
                contradiction=contradictions(table),
                **{PE_PRESENT: pe_present(table)},
            ),
            on=STUDY_UID,
        )
        for name, table in predictions.items()
        if split_lstm_name(name)[1] == "study"
    ]
    columns = [STUDY_UID, SERIES_UID, "slices", "model", PE_PRESENT, *STUDY_LABELS, "contradiction"]
    return pd.concat(tables, ignore_index=True)[columns]


def predictions_by_slice(predictions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The image-level models' probabilities, for people to read.

    Args:
        predictions: of `apply_models`.

    Returns:
        One row per slice: UIDs, ``position_mm``, and a column of probabilities for each model.
    """
    images = {n: table for n, table in predictions.items() if split_lstm_name(n)[1] == "image"}
    first = next(iter(images.values()))
    table = first[[*UIDS, POSITION]].copy()
    for name, predicted in images.items():
        table[name] = predicted[IMAGE_LABEL].to_numpy()
    return table
