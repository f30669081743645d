"""The RSNA-STR competition's weighted log loss and its rules of label consistency.

https://www.kaggle.com/c/rsna-str-pulmonary-embolism-detection. A label is positive where its
probability is above 0.5; exactly 0.5 is negative.

A study's slices are given as one flat array, with the row of each slice's study.
"""

import numpy as np
import pandas as pd
from scipy.special import rel_entr

from clotline.data.consistency import ABSENT, CHRONIC, NO_SLICES, PRESENT, RATIO, SIDE, consistent
from clotline.errors import ClotlineError
from clotline.evaluation.competition_weights import IMAGE_WEIGHT, LABEL_WEIGHTS, WEIGHTS
from clotline.evaluation.intervals import cross_entropy, percentile_estimate, ratios, resample
from clotline.evaluation.predictions import PE_PRESENT, TRUE, cases_by_target
from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_LABELS, STUDY_UID

_WEIGHTS = np.array(LABEL_WEIGHTS)
_SCORED = [number for number, name in enumerate(STUDY_LABELS) if name in WEIGHTS]

#: What a label that must be positive is raised to: above 0.5 in single precision, too.
RAISED = 0.500001


def loss_terms(
    truth: np.ndarray,
    labels: np.ndarray,
    slice_truth: np.ndarray = NO_SLICES[0],
    slices: np.ndarray = NO_SLICES[0],
    study_of: np.ndarray = NO_SLICES[1],
) -> tuple[np.ndarray, np.ndarray]:
    """What each study adds to the two sums whose ratio is the competition's score.

    Args:
        truth: (studies, 9) 0 or 1, in the order of STUDY_LABELS.
        labels: (studies, 9) probabilities.
        slice_truth: (slices,) 0 or 1.
        slices: (slices,) probabilities.
        study_of: (slices,) int, the row of ``labels`` that each slice belongs to.

    Returns:
        Numerator and denominator, (studies,) each, in nats and without unit. Slices of a
        study without a positive slice carry no weight.
    """
    studies = len(labels)
    # Positive slices / slices, the formula's q, times the sum over the slices.
    positive = np.bincount(study_of, slice_truth, studies)
    count = np.bincount(study_of, minlength=studies)
    share = IMAGE_WEIGHT * positive / np.maximum(count, 1)
    above = cross_entropy(truth, labels) @ _WEIGHTS
    above += share * np.bincount(study_of, cross_entropy(slice_truth, slices), studies)
    return above, _WEIGHTS.sum() + share * count


def make_consistent(
    labels: np.ndarray, slices: np.ndarray = NO_SLICES[0], study_of: np.ndarray = NO_SLICES[1]
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest prediction that keeps to the rules.

    For each study the nearest version with PE and the nearest without are made, and the one
    with the lower weighted cross-entropy to the original is kept. The weights are the
    competition's, with the mean probability of the study's slices for the unknown share of
    positive slices. Cross-entropy falls towards the original on both sides, so the nearest version
    changes as few labels as possible and moves each no further than 0.5.

    Args:
        labels: (studies, 9) probabilities.
        slices: (slices,) probabilities.
        study_of: (slices,) int, the row of ``labels`` that each slice belongs to.

    Returns:
        Labels and slices of the same shapes, float64.
    """
    labels, slices = labels.astype(np.float64), slices.astype(np.float64)
    studies = len(labels)
    share = np.bincount(study_of, slices, studies) / np.maximum(
        np.bincount(study_of, minlength=studies), 1
    )

    def distance(new_labels, new_slices):
        on_slices = np.bincount(study_of, _divergence(slices, new_slices), studies)
        return _divergence(labels, new_labels) @ _WEIGHTS + IMAGE_WEIGHT * share * on_slices

    with_pe = _with_pe(labels), _with_positive_slice(slices, study_of)
    without_pe = _without_pe(labels), np.minimum(slices, 0.5)
    present = distance(*with_pe) <= distance(*without_pe)
    return (
        np.where(present[:, None], with_pe[0], without_pe[0]),
        np.where(present[study_of], with_pe[1], without_pe[1]),
    )


def _divergence(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Cross-entropy of ``new`` under ``old`` less its least value: 0 where nothing changed."""
    return rel_entr(old, new) + rel_entr(1 - old, 1 - new)


def _raised(labels: np.ndarray) -> np.ndarray:
    return np.where(labels > 0.5, labels, RAISED)


def _with_pe(labels: np.ndarray) -> np.ndarray:
    new = _exactly_one(labels, RATIO)
    new[:, ABSENT] = np.minimum(labels[:, ABSENT], 0.5)
    raising = _WEIGHTS * _divergence(labels, _raised(labels))
    lowering = _WEIGHTS * _divergence(labels, np.minimum(labels, 0.5))
    rows = np.flatnonzero(~(labels[:, SIDE] > 0.5).any(1))
    new[rows, SIDE[raising[:, SIDE].argmin(1)[rows]]] = RAISED
    rows = np.flatnonzero((labels[:, CHRONIC] > 0.5).all(1))
    new[rows, CHRONIC[lowering[:, CHRONIC].argmin(1)[rows]]] = 0.5
    return new


def _without_pe(labels: np.ndarray) -> np.ndarray:
    new = _exactly_one(labels, ABSENT)
    new[:, PRESENT] = np.minimum(labels[:, PRESENT], 0.5)
    return new


def _exactly_one(labels: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Predictions with exactly one label of a pair positive, the one that costs less."""
    high, low = _raised(labels[:, pair]), np.minimum(labels[:, pair], 0.5)
    first = np.column_stack([high[:, 0], low[:, 1]])
    second = np.column_stack([low[:, 0], high[:, 1]])
    costs = [_divergence(labels[:, pair], new) @ _WEIGHTS[pair] for new in (first, second)]
    new = labels.copy()
    new[:, pair] = np.where((costs[0] <= costs[1])[:, None], first, second)
    return new


def _with_positive_slice(slices: np.ndarray, study_of: np.ndarray) -> np.ndarray:
    """Predictions of slices, with the highest of each study made positive."""
    order = np.lexsort((-slices, study_of))
    highest = order[np.unique(study_of[order], return_index=True)[1]]
    new = slices.copy()
    new[highest] = _raised(slices[highest])
    return new


def label_consistency(table: pd.DataFrame) -> dict:
    """Share of studies whose nine labels do not contradict one another.

    Args:
        table: predictions of `clotline.models.prediction.study_level_table`.

    Returns:
        ``n_studies``, share of consistent studies ``before`` and ``after`` the correction, and
        its ``cost``: by how much the weighted log loss of the study labels grows, in nats. A study
        is consistent if there are slice predictions with which it would be. Without studies
        ``reason`` instead.
    """
    if reason := _lacking(table):
        return {"n_studies": len(table), "reason": reason}
    truth, labels = _label_arrays(table)
    corrected, _ = make_consistent(labels)
    losses = [np.divide(*loss_terms(truth, p)).mean() for p in (labels, corrected)]
    return {
        "n_studies": len(table),
        "before": float(consistent(labels).mean()),
        "after": float(consistent(corrected).mean()),
        "cost": float(losses[1] - losses[0]),
    }


def _lacking(table: pd.DataFrame) -> str:
    """Why the nine labels of some studies cannot be scored, or an empty text."""
    if not len(table):
        return "no studies"
    lacking = [name for name in STUDY_LABELS if name not in table]
    return f"no predictions of {', '.join(lacking)}" if lacking else ""


def _label_arrays(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(studies, 9) truths and probabilities."""
    truth = table[[name + TRUE for name in STUDY_LABELS]].to_numpy(np.float64)
    return truth, table[list(STUDY_LABELS)].to_numpy(np.float64)


def evaluate_competition(
    study: pd.DataFrame, image: pd.DataFrame, bootstraps: int, seed: int
) -> dict:
    """The competition's score of a study-level and an image-level model together.

    Args:
        study: predictions of `clotline.models.prediction.study_level_table`.
        image: predictions of `clotline.models.prediction.image_level_table` for the same studies.
        bootstraps: number of resamples.
        seed: of the resamples.

    Returns:
        ``before`` and ``after`` the correction: each with ``log_loss`` (weighted, an `Estimate`
        dict) and ``consistent`` (share of studies); and ``cost``, the growth of the log loss; all
        on the test studies of both tables. Where there are none, or labels are missing, only
        ``reason``.
    """
    common = set(study[STUDY_UID]) & set(image[STUDY_UID])
    study, image = (table[table[STUDY_UID].isin(common)] for table in (study, image))
    study, image, study_of = _paired_test_studies(study, image)
    if reason := _lacking(study):
        return {"reason": reason}
    present = cases_by_target(study, "study")[PE_PRESENT]
    on_image = cases_by_target(image, "image")[IMAGE_LABEL]
    truth, labels = _label_arrays(study)
    result = {}
    for name, (p_labels, p_slices) in {
        "before": (labels, on_image.score),
        "after": make_consistent(labels, on_image.score, study_of),
    }.items():
        above, below = loss_terms(truth, p_labels, on_image.truth, p_slices, study_of)
        loss = ratios(above[:, None], below[:, None])
        (value,) = loss(np.ones(len(study)))
        resampled = resample(loss, len(study), bootstraps, seed)[:, 0]
        result[name] = {
            "log_loss": percentile_estimate(present, value, resampled).as_dict(),
            "consistent": float(consistent(p_labels, p_slices, study_of).mean()),
        }
    before, after = (result[name]["log_loss"]["value"] for name in ("before", "after"))
    return result | {"cost": after - before}


def submission(study: pd.DataFrame, image: pd.DataFrame) -> pd.DataFrame:
    """The test studies' predictions in the competition's format, made consistent.

    Args:
        study: predictions of `clotline.models.prediction.study_level_table`.
        image: predictions of `clotline.models.prediction.image_level_table` for the same studies.

    Returns:
        ``id`` (``<StudyInstanceUID>_<label>``, or a slice's SOPInstanceUID) and ``label`` (the
        probability): first the studies, then the stored slices.

    Raises:
        ClotlineError: the two tables have different test studies.
    """
    study, image, study_of = _paired_test_studies(study, image)
    _, labels = _label_arrays(study)
    labels, slices = make_consistent(labels, image[IMAGE_LABEL].to_numpy(), study_of)
    labels = labels[:, _SCORED]
    ids = [f"{uid}_{name}" for uid in study[STUDY_UID] for name in STUDY_LABELS if name in WEIGHTS]
    return pd.DataFrame(
        {"id": [*ids, *image[SOP_UID]], "label": np.concatenate([labels.ravel(), slices])}
    )


def _paired_test_studies(
    study: pd.DataFrame, image: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """The test rows of both tables, and for each slice the row of its study."""
    study, image = (table[table["split"] == "test"] for table in (study, image))
    study_of = pd.Index(study[STUDY_UID]).get_indexer(image[STUDY_UID])
    if (study_of < 0).any() or image[STUDY_UID].nunique() != len(study):
        raise ClotlineError("the study-level and image-level models have different test studies")
    return study, image, study_of
