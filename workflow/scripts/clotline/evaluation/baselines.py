"""What a model has to beat: predictions that see less than it does.

A slice's relative position alone, without a pixel, ranks slices of real CTPA with an AUROC of 0.8;
and the counts and percentiles of a study's slice scores rank studies without any second network.
Each AUROC is set beside that of its baseline on the same test cases.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

from clotline.evaluation.delong import auroc_delong, paired_delong
from clotline.evaluation.intervals import Cases, percentile_estimate, resample
from clotline.evaluation.predictions import PE_PRESENT, PE_PRESENT_BY_MAX, TRUE, pe_present
from clotline.evaluation.ranking import Ranking, paired_bootstrap, roc_points
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS

#: Knots of the spline from a slice's relative position to its logit.
KNOTS = 8

#: A study's slices above each of these probabilities are counted.
THRESHOLDS = np.linspace(0.1, 0.9, 9)

#: Percentiles of a study's slice scores.
PERCENTILES = (30, 50, 70, 80, 90, 95, 99, 100)

#: Scores are kept this far from 0 and 1 before their logit.
_EDGE = 1e-4

#: Inverse strengths of the ridge penalty to choose from, by cross-validation with _FOLDS folds;
#: where a class has fewer studies than there are folds, the first one is taken.
_STRENGTHS, _FOLDS = (0.01, 0.1, 1.0, 10.0), 5


def relative_positions(study: np.ndarray) -> np.ndarray:
    """Where each slice lies in its study: 0 the first (lowest), 1 the last (highest).

    Args:
        study: (n,) study of each slice; a study's slices in the order of the scan.

    Returns:
        (n,) float64; 0.5 for the only slice of a study.
    """
    number = pd.Series(study).groupby(study, sort=False)
    rank, count = number.cumcount().to_numpy(), number.transform("size").to_numpy()
    return np.where(count > 1, rank / np.maximum(count - 1, 1), 0.5)


def position_baseline(slices: pd.DataFrame) -> pd.DataFrame:
    """Slice probabilities from the relative position alone, fitted on the train slices.

    Logistic regression on cubic B-splines of the relative position.

    Args:
        slices: slices.parquet.

    Returns:
        One row per test slice: UIDs and the image label's probability. No rows where all train
        slices are of one class.
    """
    position = relative_positions(slices[STUDY_UID].to_numpy())[:, None]
    truth = slices[IMAGE_LABEL].to_numpy() == 1
    train, test = ((slices["split"] == split).to_numpy() for split in ("train", "test"))
    table = slices.loc[test, list(UIDS)].reset_index(drop=True)
    if not len(table) or truth[train].all() or not truth[train].any():
        return table[:0].assign(**{IMAGE_LABEL: np.empty(0)})
    splines = SplineTransformer(KNOTS, knots=np.linspace(0, 1, KNOTS)[:, None])
    model = make_pipeline(splines, LogisticRegression(max_iter=1000))
    model.fit(position[train], truth[train])
    return table.assign(**{IMAGE_LABEL: model.predict_proba(position[test])[:, 1]})


def summarise_slice_scores(study: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """What the count-and-percentile baseline sees of each study.

    Args:
        study: (n,) study of each slice.
        score: (n,) probabilities of the slices.

    Returns:
        One row per study, in order of appearance: log(1 + number of slices above a threshold) for
        each of `THRESHOLDS`, and the logits of the scores' `PERCENTILES` and mean.
    """
    scores = pd.Series(score).groupby(study, sort=False)
    columns = {
        f"above {threshold:.1f}": np.log1p(
            pd.Series(score > threshold).groupby(study, sort=False).sum()
        )
        for threshold in THRESHOLDS
    }
    columns |= {f"percentile {p}": _logit(scores.quantile(p / 100)) for p in PERCENTILES}
    columns["mean"] = _logit(scores.mean())
    return pd.DataFrame(columns)


def count_baseline(image: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Study probabilities from the slice scores of an image-level model, fitted on valid.

    Ridge logistic regression, its penalty chosen by cross-validation. It is fitted on the valid
    studies, because the network that scored the slices was trained on those of train.

    Args:
        image: predictions of `clotline.models.prediction.image_level_table`, valid and test.
        plan: plan.parquet.

    Returns:
        One row per test study: UID, and the probability of each target of the study level, and of
        a positive slice (``pe_present_by_max``). A target for which all valid studies are of one
        class has no column.
    """
    score = image[IMAGE_LABEL].to_numpy(np.float64)
    summaries = summarise_slice_scores(image[STUDY_UID].to_numpy(), score)
    split = image.drop_duplicates(STUDY_UID).set_index(STUDY_UID)["split"].loc[summaries.index]
    truths = plan.set_index(STUDY_UID).loc[summaries.index, list(STUDY_LABELS)]
    truths[PE_PRESENT] = pe_present(truths)
    truths[PE_PRESENT_BY_MAX] = image.groupby(STUDY_UID)[IMAGE_LABEL + TRUE].max()
    valid, test = (summaries[split == name] for name in ("valid", "test"))
    table = pd.DataFrame({STUDY_UID: test.index})
    for target in truths:
        on_valid = truths.loc[valid.index, target].to_numpy() == 1
        fewest = min(on_valid.sum(), (~on_valid).sum())
        if fewest and len(test):
            table[target] = _fit(valid, on_valid, fewest).predict_proba(test)[:, 1]
    return table


def _fit(summaries: pd.DataFrame, truth: np.ndarray, fewest: int):
    ridge = LogisticRegression(C=_STRENGTHS[0], max_iter=1000)
    model = make_pipeline(StandardScaler(), ridge)
    if fewest >= _FOLDS:
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        strengths = {"logisticregression__C": _STRENGTHS}
        model = GridSearchCV(model, strengths, scoring="neg_log_loss", cv=folds)
    return model.fit(summaries, truth)


def _logit(probability: pd.Series) -> pd.Series:
    kept = probability.clip(_EDGE, 1 - _EDGE)
    return np.log(kept / (1 - kept))


@dataclass(frozen=True)
class Baseline:
    """Predictions that a model has to beat.

    Attributes:
        name: as in tables and pages.
        table: of `position_baseline` or `count_baseline`.
    """

    name: str
    table: pd.DataFrame

    def column(self, test: pd.DataFrame, target: str) -> np.ndarray | None:
        """The baseline's probabilities for the rows of a model's predictions; None if it has none.

        Args:
            test: the model's test rows; at the image level slices, else studies.
            target: as in `clotline.evaluation.predictions.cases_by_target`.
        """
        keys = list(UIDS) if target == IMAGE_LABEL else [STUDY_UID]
        if target not in self.table:
            return None
        rows = test[keys].drop_duplicates()
        joined = rows.merge(self.table[[*keys, target]], on=keys, how="left", validate="1:1")
        probability = joined[target].to_numpy(np.float64)
        return None if np.isnan(probability).any() else probability


def beside_baseline(
    cases: Cases, baseline: Baseline | None, score: np.ndarray | None, bootstraps: int, seed: int
) -> dict:
    """A baseline's AUROC on the cases of a model, and by how much the model beats it.

    Args:
        cases: the model's test cases.
        baseline: what it has to beat.
        score: (n,) the baseline's probabilities of these cases.
        bootstraps: resamples of studies, for slices.
        seed: of the resamples.

    Returns:
        ``name``, ``auroc`` and ``difference`` (model minus baseline; `Estimate` dicts),
        ``p_value``, ``beaten`` (whether the interval of the difference lies above 0) and ``roc``
        (``fpr`` and ``tpr``); or a ``reason``, with the ``name`` where there is a baseline.
    """
    if baseline is None:
        return {"reason": "there is no image-level model to make it of"}
    if reason := cases.one_class():
        return {"name": baseline.name, "reason": reason}
    if score is None:
        reason = "the studies to fit it on are of one class only, or it lacks some of these cases"
        return {"name": baseline.name, "reason": reason}
    other = Cases(cases.truth, score, cases.study, cases.are_slices)
    if cases.are_slices:
        ranking = Ranking(other)
        value = ranking.metrics(np.ones(other.studies, dtype=int))[0]
        drawn = resample(lambda draws: ranking.metrics(draws)[:1], other.studies, bootstraps, seed)
        auroc = percentile_estimate(other, value, drawn[:, 0])
        difference, p_value = paired_bootstrap(cases, other, bootstraps, seed)
    else:
        auroc = auroc_delong(other)
        difference, p_value = paired_delong(cases, other)
    fpr, tpr = roc_points(other.truth, other.score)
    return {
        "name": baseline.name,
        "auroc": auroc.as_dict(),
        "difference": difference.as_dict(),
        "p_value": p_value,
        "beaten": difference.low is not None and difference.low > 0,
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
    }
