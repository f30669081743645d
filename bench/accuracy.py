"""What each ingredient of accuracy is worth: writes bench/accuracy.md, a part at a time.

``stage2`` compares networks of stage 2 on where emboli really lie: the labels of real CTPA series
(penet_series.csv in the folder CLOTLINE_REAL names), with features simulated from them. Each seed
draws its own features, division and initial weights; what is finished is kept, so that it goes on
where it was stopped.

``phantom`` trains both stages, of the published recipe and of each rung of a ladder, on the hard
phantom (`bench.ladder`); ``semisynthetic`` does so on real vessel trees and emboli
(`bench.semisynthetic`).
"""

import argparse
import datetime
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from bench import PROJECT, ladder, semisynthetic, tables
from bench.kept import Kept
from clotline.data.features_file import create_features, write_features
from clotline.errors import ClotlineError
from clotline.evaluation.baselines import count_baseline, position_baseline
from clotline.evaluation.competition import loss_terms
from clotline.evaluation.predictions import PE_PRESENT, pe_present
from clotline.job.files import atomic
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS
from clotline.loading.study_loader import FeatureSequences
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_fabric
from clotline.models.lstm import load_lstm
from clotline.models.lstm_training import train_lstm
from clotline.models.odds import calibrate_odds
from clotline.models.prediction import image_level_table, predict_studies, study_level_table
from clotline.sections.lstm import LSTMSection, lstm_sections
from clotline.workflow.config import load_config

#: Slices of the real series, 1.25 mm, that one simulated slice covers: 10 mm.
TOGETHER = 8

#: Studies to train on and to validate; all others test.
TRAIN, VALID = 500, 120

#: Features of a slice, mixed of as many channels.
WIDTH, CHANNELS = 32, 8

_LEARNED = {
    "standardize": True,
    "dropout": 0.2,
    "optimizer": "adamw",
    "lr": 0.002,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "keep": "last",
    "precision": "32-true",
}
_NEW = _LEARNED | {
    "cell": "gru",
    "bidirectional": True,
    "pooling": ["mean", "max", "attention"],
    "neighbour_differences": True,
    "reversal": True,
}
#: Contestant to what its entries of the configuration say beyond the defaults.
CONTESTANTS = {
    "published LSTM": {"precision": "32-true"},
    "published LSTM, trained as in the demo": _LEARNED
    | {"forget_bias": 3, "target_replication": 0.5},
    "bidirectional GRU, pooled, neighbours' differences, reversal": _NEW,
    "the same with the competition's loss and odds factor": _NEW
    | {"loss": "competition", "q_floor": 0.001, "calibrate_odds": True},
}
PUBLISHED = next(iter(CONTESTANTS))

#: Metric to its key in a result, and whether more is better.
METRICS = {
    "study AUROC": "study",
    "slice AUROC": "slice",
    "slices' part of the competition's metric": "metric",
}


#: Parts of the table, in its order.
PARTS = ("phantom", "semisynthetic", "stage2")


def main() -> None:
    """Runs what is missing, and writes its part of the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--folder", type=Path, default=PROJECT / "bench/accuracy", help="of runs")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help="of stage2 how many, of a ladder which; without it 5, or 1 2 3",
    )
    parser.add_argument("--rungs", nargs="+", help="of a ladder, by number; all without it")
    parser.add_argument("--studies", type=int, help="of a ladder, not 1,040")
    parser.add_argument("--minutes", type=float, help="CPU minutes a rung, not 20")
    parser.add_argument("--tiny", action="store_true", help="a ladder in a few minutes, to test it")
    parser.add_argument(
        "--output",
        type=Path,
        help="bench/accuracy.md without it; what finished rungs gave is kept beside it",
    )
    arguments = parser.parse_args()
    if arguments.tiny and arguments.output is None:
        parser.error("--tiny says nothing that belongs into bench/accuracy.md: name --output")
    arguments.output = arguments.output or PROJECT / "bench/accuracy.md"
    for text in PART_TO_RUN[arguments.part](arguments):
        write_part(arguments.output, arguments.part, text)
    print(text)


def write_part(path: Path, part: str, text: str) -> None:
    """Puts a part into the table's file in place of its earlier one.

    Args:
        path: of the file.
        part: one of `PARTS`.
        text: Markdown, from the part's heading on.
    """
    sections = dict.fromkeys(PARTS, "")
    if path.exists():
        _, *found = re.split(r"<!-- (\w+) -->\n", path.read_text(encoding="utf-8"))
        sections |= zip(found[::2], found[1::2], strict=True)
    sections[part] = text
    kept = (f"<!-- {name} -->\n{text.strip()}\n" for name, text in sections.items() if text)
    head = "# What the ingredients of accuracy are worth\n\n"
    with atomic(path) as temporary:
        temporary.write_text(head + "\n".join(kept), encoding="utf-8")


def run_ladder(arguments: argparse.Namespace) -> Iterator[str]:
    """The ladder on either phantom; yields its part of the table after each rung."""
    size = ladder.TINY if arguments.tiny else ladder.WHOLE
    if arguments.part == "semisynthetic":
        settings = semisynthetic.TINY if arguments.tiny else semisynthetic.WHOLE
        masks = _real_folder(
            "semisynthetic needs masks of real lungs, vessels and emboli",
            "cadpe_masks, which has those of the CAD-PE cases in github.com/guojiajeremy/AANet as "
            "NNN_lungmask.nii.gz, NNN_vessel.nii.gz and NNN_aanet_pe.nii.gz",
        )
        cohort = semisynthetic.SemiSynthetic.of(masks / "cadpe_masks", settings)
        # Theirs fill all of the crop.
        size = replace(size, cohort=cohort, pixels=size.pixels | ladder.ALL_VESSELS)
    if arguments.studies is not None:
        size = replace(size, cohort=size.cohort.with_studies(arguments.studies))
    if arguments.minutes is not None:
        size = replace(size, minutes=arguments.minutes)
    seeds = arguments.seeds or ([1] if arguments.tiny else [1, 2, 3])
    rungs, kept = ladder.choose(arguments.rungs, size), Kept(arguments.output.with_suffix(".jsonl"))
    yield from ladder.run(arguments.folder, seeds, rungs, size, kept)


def run_stage2(arguments: argparse.Namespace) -> Iterator[str]:
    """Networks of stage 2 alone; yields its part of the table after each seed and at the end."""
    real = _real_folder(
        "stage2 needs where real emboli lie",
        "penet_series.csv, made of series_list.pkl of github.com/marshuang80/penet with the "
        "columns study_num, is_positive, num_slices, type and pe_idxs",
    )
    series = read_series(real / "penet_series.csv")
    for seed in range(max(arguments.seeds or [5])):
        path = arguments.folder / f"stage2-{seed}.json"
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        # What was run with other settings is run again.
        recipes = {
            name: [keys, TOGETHER, TRAIN, VALID, WIDTH] for name, keys in CONTESTANTS.items()
        }
        done = {name for name in results if recipes.get(name) == results[name]["recipe"]}
        results = {name: results[name] for name in results if name in done}
        missing = {name: keys for name, keys in CONTESTANTS.items() if name not in done}
        if not missing:
            continue
        arguments.folder.mkdir(parents=True, exist_ok=True)
        cohort = Cohort.simulate(series, seed, arguments.folder / "features.h5")
        for name, keys in missing.items():
            results[name] = run(cohort, keys, seed, arguments.folder)
            print(f"seed {seed}, {name}: {results[name]}", flush=True)
            results[name]["recipe"] = recipes[name]
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
        yield describe(read_results(arguments.folder))
    yield describe(read_results(arguments.folder))


PART_TO_RUN = {"phantom": run_ladder, "semisynthetic": run_ladder, "stage2": run_stage2}


def _real_folder(why: str, contents: str) -> Path:
    """The folder of real data.

    Raises:
        SystemExit: none is named.
    """
    real = os.environ.get("CLOTLINE_REAL")
    if not real:
        raise SystemExit(f"{why}: set CLOTLINE_REAL to a folder with {contents}")
    return Path(real)


def read_series(path: Path) -> pd.DataFrame:
    """The series whose positive slices are known.

    Args:
        path: CSV with ``study_num``, ``is_positive``, ``num_slices``, ``type`` and ``pe_idxs``.

    Returns:
        One row a series: ``study_num``, ``type`` and ``labels``, (n,) int8 from one end of the
        scan to the other, of thick slices that are positive where one of `TOGETHER` is.

    Raises:
        ClotlineError: the file cannot be read.
    """
    try:
        table = pd.read_csv(path, dtype={"pe_idxs": str})
        known = table[(table["is_positive"] == 0) | table["pe_idxs"].notna()]
        positive = [[int(i) for i in text.split()] for text in known["pe_idxs"].fillna("")]
        # Of two series the slices do not fit their number.
        fits = [max(i, default=0) < n for i, n in zip(positive, known["num_slices"], strict=True)]
        known = known[fits].assign(
            positive=[i for i, fit in zip(positive, fits, strict=True) if fit]
        )
        labels = [
            thick_labels(indices, count)
            for indices, count in zip(known["positive"], known["num_slices"], strict=True)
        ]
    except (OSError, KeyError, ValueError) as error:
        raise ClotlineError(f"{path} is no list of series with positive slices: {error}") from None
    return known[["study_num", "type"]].assign(labels=labels).reset_index(drop=True)


def thick_labels(positive: list[int], count: int) -> np.ndarray:
    """Which thick slices are positive, of the indices of thin ones: (n,) int8."""
    thin = np.zeros(-(-count // TOGETHER) * TOGETHER, np.int8)
    thin[positive] = 1
    return thin.reshape(-1, TOGETHER).max(1)


class Cohort:
    """Real labels with simulated features, divided.

    Attributes:
        slices: as slices.parquet.
        studies: of `clotline.data.slice_table.locate_studies`.
        features: the features file.
    """

    def __init__(self, slices: pd.DataFrame, studies: pd.DataFrame, features: Path):
        self.slices, self.studies, self.features = slices, studies, features

    @classmethod
    def simulate(cls, series: pd.DataFrame, seed: int, features: Path) -> "Cohort":
        """Draws the features and the division.

        A clot shows in two channels, the fainter the fewer slices it has. Look-alikes, runs of a
        few slices in any study, show there as well, and faintly in a third channel. Noise goes on
        from slice to slice, and each study has its own level. What a slice's features are of is
        mixed into `WIDTH` numbers that are never negative, as a CNN's are.

        Args:
            series: of `read_series`.
            seed: of all that is drawn.
            features: file to write.
        """
        rng = np.random.default_rng((seed, 2))
        channels = [draw_channels(labels, rng) for labels in series["labels"]]
        mixing = rng.normal(size=(CHANNELS, WIDTH)) / np.sqrt(CHANNELS)
        values = np.concatenate(channels) @ mixing + rng.normal(0, 0.5, WIDTH)
        values = np.maximum(values + rng.normal(0, 0.3, values.shape), 0).astype(np.float16)
        with create_features(features, len(values), WIDTH, "simulated", "0" * 64) as file:
            write_features(file, 0, values)
        counts = series["labels"].map(len).to_numpy()
        splits = np.repeat(["train", "valid", "test"], [TRAIN, VALID, len(series) - TRAIN - VALID])
        studies = pd.DataFrame({STUDY_UID: series["study_num"].astype(str)})
        studies["split"] = rng.permutation(splits)
        studies["first"], studies["count"] = np.r_[0, counts.cumsum()[:-1]], counts
        positive = series["labels"].map(max).to_numpy()
        for label in STUDY_LABELS:
            studies[label] = 0
        studies["negative_exam_for_pe"] = 1 - positive
        studies["central_pe"] = positive * (series["type"] == "central").to_numpy()
        slices = studies.loc[studies.index.repeat(counts), [STUDY_UID, "split"]]
        slices = slices.reset_index(drop=True)
        slices["position_mm"] = np.concatenate([np.arange(n) * 1.25 * TOGETHER for n in counts])
        slices[IMAGE_LABEL] = np.concatenate(series["labels"].to_list())
        for uid in UIDS[1:]:
            slices[uid] = slices.index.astype(str)
        return cls(slices, studies, features)

    def sequences(self, split: str, level: str) -> FeatureSequences:
        """The studies of a split as a network of a level reads them."""
        studies = self.studies[self.studies["split"] == split]
        files, labels = [str(self.features)], self.slices[IMAGE_LABEL].to_numpy()
        return FeatureSequences(studies, files, level, labels)


def draw_channels(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the features of one study are mixed of: (slices, `CHANNELS`) float64."""
    count = len(labels)
    shown = labels * rng.lognormal(0.3, 0.5) * min(1.0, 0.35 + labels.sum() / 20)
    alike = np.zeros(count)
    for _ in range(rng.poisson(1.5)):
        start, length = rng.integers(count), rng.integers(1, 5)
        alike[start : start + length] = rng.lognormal(0.3, 0.5)
    noise = rng.normal(size=(count, CHANNELS))
    for row in range(1, count):
        noise[row] = 0.5 * noise[row - 1] + np.sqrt(0.75) * noise[row]
    noise += rng.normal(0, 0.5, CHANNELS)
    position = np.linspace(-1, 1, count)
    clean = np.zeros((count, CHANNELS))
    clean[:, 0], clean[:, 1] = 1.6 * (shown + alike), 1.2 * shown + 1.6 * alike
    clean[:, 2] = alike
    clean[:, 3], clean[:, 4] = 2 * position, 2 * position**2
    return clean + noise


def run(cohort: Cohort, keys: dict, seed: int, folder: Path) -> dict[str, float]:
    """Trains a contestant's two networks and tests them.

    Args:
        cohort: the studies.
        keys: of `CONTESTANTS`.
        seed: of the training.
        folder: for the state of the training.

    Returns:
        Number of ``studies``; AUROC by ``study`` and ``slice``, those of the ``count`` baseline on
        its slice scores and of the ``position`` alone, the slices' part of the competition's
        ``metric`` in nats, and CPU ``seconds``.
    """
    start = time.process_time()
    image = train(cohort, "image", keys, seed, folder)
    study = train(cohort, "study", keys, seed, folder)
    seconds = time.process_time() - start
    test = image[image["split"] == "test"]
    of_study = study[study["split"] == "test"]
    truth, score = test[f"{IMAGE_LABEL}_true"].to_numpy(), test[IMAGE_LABEL].to_numpy()
    study_of = pd.factorize(test[STUDY_UID])[0]
    labels = np.zeros((study_of.max() + 1, len(STUDY_LABELS)))
    above, below = loss_terms(labels, labels, truth, score, study_of)
    metric = above.sum() / (below - loss_terms(labels, labels)[1]).sum()
    position = position_baseline(cohort.slices)[IMAGE_LABEL]
    count = count_baseline(image, cohort.studies)[PE_PRESENT]
    present = pe_present(of_study, "_true")
    return {
        "study": roc_auc_score(present, pe_present(of_study)),
        "slice": roc_auc_score(truth, score),
        "metric": float(metric),
        "count": roc_auc_score(present, count),
        "position": roc_auc_score(truth, position),
        "seconds": seconds,
        "studies": len(cohort.studies),
    }


def train(cohort: Cohort, level: str, keys: dict, seed: int, folder: Path) -> pd.DataFrame:
    """The predictions of valid and test studies by a network that is trained as the rule does."""
    section = replace(_defaults(), **keys)
    fabric = make_fabric(section.precision, 0, 1)
    training, valid = (cohort.sequences(split, level) for split in ("train", "valid"))
    state = folder / "state.pt"
    state.unlink(missing_ok=True)
    fitted = train_lstm(section, level, training, valid, fabric, state, seed)
    state.unlink()
    trained = Checkpoint(
        kind="lstm",
        name=f"simulated-{level}",
        config=section.as_dict(),
        seed=seed,
        width=training.width,
        epoch=fitted.best_epoch,
        weights=fitted.best,
    )
    if section.calibrate_odds:
        weights = calibrate_odds(trained, level, valid, section.batch_size, fabric)
        trained = replace(trained, weights=weights)
    studies = cohort.studies[cohort.studies["split"] != "train"]
    files, labels = [str(cohort.features)], cohort.slices[IMAGE_LABEL].to_numpy()
    sequences = FeatureSequences(studies, files, level, labels)
    network = load_lstm(trained, level, "the trained network")
    probabilities = predict_studies(network, sequences, fabric)
    if level == "image":
        return image_level_table(cohort.slices, studies, probabilities)
    return study_level_table(studies, probabilities)


def _defaults() -> LSTMSection:
    return lstm_sections(load_config({}))["combined-study"]


def read_results(folder: Path) -> pd.DataFrame:
    """One row a seed and contestant: ``seed``, ``contestant`` and the keys of `run`."""
    rows = []
    for path in sorted(folder.glob("stage2-*.json")):
        seed = int(path.stem.removeprefix("stage2-"))
        for name, result in json.loads(path.read_text(encoding="utf-8")).items():
            rows.append({"seed": seed, "contestant": name} | result)
    return pd.DataFrame(rows)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95% interval by Student's t; of a single value it has no ends."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def _difference(by_seed: pd.Series) -> str:
    mean, low, high = interval(by_seed.dropna().to_numpy())
    return f"{mean:+.3f}" + ("" if np.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")


def describe(results: pd.DataFrame) -> str:
    """The results as Markdown."""
    wide = {key: results.pivot_table(index="seed", columns="contestant", values=key, sort=False)
            for key in (*METRICS.values(), "count", "position", "seconds")}  # fmt: skip
    lines = []
    for name in (name for name in CONTESTANTS if name in wide["study"]):
        cells = [name, f"{wide['study'][name].count()}"]
        for key in METRICS.values():
            values = wide[key][name].dropna()
            cells.append(f"{values.mean():.3f}")
            if name != PUBLISHED:
                cells[-1] += f" ({_difference(values - wide[key][PUBLISHED])})"
        beside = _difference(wide["study"][name] - wide["count"][name])
        cells.append(f"{wide['count'][name].mean():.3f} ({beside})")
        cells.append(f"{wide['seconds'][name].median():.0f}")
        lines.append(cells)
    head = ["network", "seeds", *METRICS, "study AUROC of counts and percentiles of its slices",
            "CPU s"]  # fmt: skip
    studies = results["studies"].max()
    today = f"{datetime.date.today():%Y-%m-%d}"
    return "\n".join(
        [
            "## Stage 2 alone, on where real emboli lie",
            "",
            f"Measured by `python -m bench.accuracy stage2` on {today}: "
            f"{tables.describe_machine()}, one thread. Labels of {studies:,} real CTPA series "
            f"(PENet's), {TOGETHER * 1.25:g} mm a slice; features simulated from them, so that the "
            f"numbers compare networks and say nothing of patients. {TRAIN} studies train, {VALID} "
            "validate, all others test; each seed draws features, division and initial weights. "
            "In brackets: the difference from the published LSTM on the same seeds, with a 95% "
            "interval over seeds (Student's t); in the last but one column the difference of the "
            "network's study AUROC from that baseline. The competition's metric is in nats, and "
            "less is better. All networks have 64 hidden units and train 20 epochs.",
            "",
            f"A slice's position alone: slice AUROC {wide['position'].to_numpy().mean():.3f}.",
            "",
            tables.markdown(head, lines),
        ]
    )


if __name__ == "__main__":
    main()
