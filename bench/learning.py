"""What the demo's recipe learns, over seeds and arithmetics: writes bench/learning.md.

Each run trains both CNNs and all six LSTMs of the demo on its phantom, by the workflow's own
scripts. What finished runs of this recipe gave is kept in bench/learning.json, so that the
benchmark goes on where it was stopped, on another machine too; networks are kept in the folder, so
that with another recipe for one the other is not trained again.
"""

import argparse
import contextlib
import datetime
import functools
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score

from bench import AVX2, PROJECT, tables
from bench.scripts import job
from clotline.feature_sets import feature_sets, split_lstm_name
from clotline.labels import NO_PE_LABELS, pe_probability
from clotline.workflow.config import load_config

SEEDS = range(1, 6)

#: What finished runs gave; ``seconds`` is null where other work ran beside one.
KEPT = PROJECT / "bench/learning.json"

#: Name to the precision, and the variables of its processes.
ARITHMETICS = {
    "32-true": ("32-true", {}),
    "32-true AVX2": ("32-true", AVX2),
    "bf16-mixed": ("bf16-mixed", {}),
}

#: What must hold: in every run, and for the combined features in the median as well.
LEAST = {"study": 0.70, "image": 0.85}
LEAST_COMBINED, LEAST_COMBINED_MEDIAN = 0.80, 0.85
#: How much worse than a single backbone the combined features may be in the median.
WORSE = 0.02


def main() -> None:
    """Runs what is missing of the grid, and writes its table."""
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=__doc__)
    parser.add_argument("--folder", default="bench/learning", help="of the runs")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--arithmetics", nargs="*", choices=ARITHMETICS, default=list(ARITHMETICS))
    parser.add_argument("--run", nargs=2, metavar=("ARITHMETIC", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = PROJECT / arguments.folder
    if arguments.run:
        arithmetic, seed = arguments.run
        run(folder, arithmetic, int(seed))
        return
    grid = [(name, seed) for name in arguments.arithmetics for seed in arguments.seeds]
    path = PROJECT / "bench/learning.md"
    for done, (name, seed) in enumerate(grid, start=1):
        if _is_kept(name, seed):
            continue
        if _is_known(folder, name, seed):
            _keep(_result(folder, name, seed))
            continue
        print(f"run {done} of {len(grid)}: {name}, seed {seed}", flush=True)
        command = [sys.executable, "-m", "bench.learning", "--folder", arguments.folder]
        subprocess.run(
            [*command, "--run", name, str(seed)],
            check=True,
            cwd=PROJECT,
            env=os.environ | ARITHMETICS[name][1],
        )
        _keep(_result(folder, name, seed))
        # Whoever stops it has the table of what was run.
        path.write_text(describe(kept_runs()), encoding="utf-8")
    text = describe(kept_runs())
    print(text)
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}")


@functools.cache
def recipe_digest() -> str:
    """Of what the demo's configuration says, comments aside: other recipes' runs do not count."""
    config = yaml.safe_load((PROJECT / "demo/config/config.yaml").read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def kept_runs() -> list[dict]:
    """The finished runs of this recipe, of whatever machine."""
    runs = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    return [run for run in runs if run["recipe"] == recipe_digest()]


def _is_kept(arithmetic: str, seed: int) -> bool:
    return any((run["arithmetic"], run["seed"]) == (arithmetic, seed) for run in kept_runs())


def _keep(result: Path) -> None:
    """Adds a finished run to those that are kept, and forgets those of other recipes."""
    run = json.loads(result.read_text(encoding="utf-8")) | {"recipe": recipe_digest()}
    order = [(name, seed) for name in ARITHMETICS for seed in SEEDS]
    runs = [*kept_runs(), run]
    runs.sort(key=lambda run: order.index((run["arithmetic"], run["seed"])))
    KEPT.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _is_known(folder: Path, arithmetic: str, seed: int) -> bool:
    """Takes the run in 32-true for the one held to AVX2 where the processor has no more than that.

    Only once a seed that was run both ways gave the same AUROC to the last digit.
    """
    import torch

    if arithmetic != "32-true AVX2" or torch.cpu.get_capabilities()["avx512_f"]:
        return False
    results = read_results(folder)
    auroc = results.pivot_table(index=["seed", "lstm"], columns="arithmetic", values="auroc")
    if not {"32-true", arithmetic} <= set(auroc):
        return False
    twice = auroc[["32-true", arithmetic]].dropna()
    same = _result(folder, "32-true", seed)
    if not len(twice) or (twice["32-true"] != twice[arithmetic]).any() or not same.exists():
        return False
    content = json.loads(same.read_text(encoding="utf-8")) | {"arithmetic": arithmetic}
    path = _result(folder, arithmetic, seed)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content | {"taken": True}), encoding="utf-8")
    return True


def _result(folder: Path, arithmetic: str, seed: int) -> Path:
    return folder / f"{arithmetic.replace(' ', '-')}-{seed}" / "result.json"


def run(folder: Path, arithmetic: str, seed: int) -> None:
    """One run of the grid, by two processes of one thread each."""
    result = _result(folder, arithmetic, seed)
    precision, _ = ARITHMETICS[arithmetic]
    config = yaml.safe_load((PROJECT / "demo/config/config.yaml").read_text(encoding="utf-8"))
    for section in (*config["cnn"].values(), *config["lstm"].values()):
        section["precision"] = precision
    config = load_config(config | {"seed": seed})
    where = result.parent
    (where / "results").mkdir(parents=True, exist_ok=True)
    sets = feature_sets(config)
    start = time.monotonic()
    emulated = precision == "bf16-mixed" and not _has_bfloat16()
    with ProcessPoolExecutor(2, get_context("spawn"), _enter, (str(where), emulated)) as pool:
        # The slower network first.
        backbones = sorted(config["cnn"], key=lambda name: name != "resnext50")
        list(pool.map(_train_backbone, [(name, config["cnn"][name], seed) for name in backbones]))
        jobs = [
            (name, section, seed, sets[split_lstm_name(name)[0]])
            for name, section in config["lstm"].items()
        ]
        auroc = dict(pool.map(_train_lstm, jobs))
    seconds = time.monotonic() - start
    content = {
        "arithmetic": arithmetic,
        "seed": seed,
        "emulated": emulated,
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "machine": tables.describe_machine(),
        "seconds": seconds,
        "auroc": auroc,
        "forms": compare_forms(where / "results/predictions"),
    }
    result.write_text(json.dumps(content), encoding="utf-8")


def _has_bfloat16() -> bool:
    import torch

    return torch.cpu.get_capabilities().get("avx512_bf16", False)


def _enter(folder: str, emulated: bool) -> None:
    """Prepares a process of a run."""
    os.chdir(folder)
    if emulated:
        from bench.bfloat16 import BFloat16Units

        # For as long as the process lives.
        contextlib.ExitStack().enter_context(BFloat16Units())


_DATA = PROJECT / "demo/results/data"


def _train_backbone(task: tuple[str, dict, int]) -> None:
    """Trains one CNN and makes its features, if they are not there yet."""
    name, section, seed = task
    made_by, recipe = Path(f"results/features/{name}.json"), json.dumps(section)
    if made_by.exists() and made_by.read_text(encoding="utf-8") == recipe:
        return
    shards = sorted(map(str, (_DATA / "shards").glob("shard-*.h5")))
    features = Path("results/features")
    features.mkdir(parents=True, exist_ok=True)
    (Path("results/cnn")).mkdir(exist_ok=True)
    params = {"cfg": json.dumps(section), "seed": json.dumps(seed), "code": ""}
    job(
        "train_cnn",
        {
            "slices": str(_DATA / "slices.parquet"),
            "positives": str(_DATA / "positives.h5"),
            "shards": shards,
            "imagenet": [],
            "init": [],
        },
        {
            "best": f"results/cnn/{name}.pt",
            "last": f"results/cnn/{name}.last.pt",
            "history": f"results/cnn/{name}.csv",
        },
        params,
        backbone=name,
    )
    parts = []
    for shard in shards:
        part = features / f"{name}-{Path(shard).name}"
        parts.append(str(part))
        inputs = {"checkpoint": f"results/cnn/{name}.pt", "shard": shard}
        job("extract_features", inputs, {"part": str(part)}, backbone=name)
    job("merge_features", {"parts": parts}, {"features": str(features / f"{name}.h5")})
    made_by.write_text(recipe, encoding="utf-8")


def _train_lstm(task: tuple[str, dict, int, list[str]]) -> tuple[str, float]:
    """Trains one LSTM and tests it; gives its name and the AUROC of its first target on test."""
    from clotline.data.tables import read_table
    from clotline.evaluation.predictions import cases_by_target
    from clotline.models.monitoring import auroc

    name, section, seed, backbones = task
    for folder in ("lstm", "predictions"):
        Path("results", folder).mkdir(exist_ok=True)
    inputs = {
        "slices": str(_DATA / "slices.parquet"),
        "plan": str(_DATA / "plan.parquet"),
        "features": [f"results/features/{backbone}.h5" for backbone in backbones],
    }
    best, predictions = f"results/lstm/{name}.pt", f"results/predictions/{name}.parquet"
    params = {"cfg": json.dumps(section), "seed": json.dumps(seed), "code": ""}
    outputs = {"best": best, "history": f"results/lstm/{name}.csv"}
    job("train_lstm", inputs | {"init": []}, outputs, params, lstm=name)
    job("predict_lstm", inputs | {"checkpoint": best}, {"table": predictions}, lstm=name)
    table = read_table(predictions)
    cases = cases_by_target(table[table["split"] == "test"], split_lstm_name(name)[1])
    first = next(iter(cases.values()))
    return name, auroc(first.truth.astype(int), first.score)


def read_results(folder: Path) -> pd.DataFrame:
    """One row a run in the folder and LSTM: see `table_of`."""
    paths = sorted(folder.glob("*/result.json"))
    return table_of([json.loads(path.read_text(encoding="utf-8")) for path in paths])


def table_of(runs: list[dict]) -> pd.DataFrame:
    """One row a run and LSTM: ``arithmetic``, ``seed``, ``emulated``, ``seconds``, ``auroc``."""
    return pd.DataFrame(
        [
            run | {"lstm": name, "auroc": value}
            for run in runs
            for name, value in run["auroc"].items()
        ]
    )


def describe(runs: list[dict]) -> str:
    """The grid's tables as Markdown, and whether what must hold holds."""
    results = table_of(runs)
    whole = len(ARITHMETICS) * len(SEEDS)
    lines = [
        "# What the demo's recipe learns",
        "",
        "Measured by `make bench-learning`. AUROC on the phantom's test studies: of PE present at "
        "the study level, of slices at the image level.",
        "",
    ]
    machines = {}
    for run in runs:
        machines.setdefault((run["machine"], run["date"]), []).append(run)
    lines += [
        f"- {len(some)} of the {whole} runs on {date}: {machine}."
        for (machine, date), some in machines.items()
    ]
    lines.append("")
    if any(run["emulated"] for run in runs):
        lines += [
            "Where a machine had no bfloat16 units, the operands and results of convolutions and "
            "matrix products were rounded to bfloat16 and summed in float32, as such units do.",
            "",
        ]
    if taken := sum(run.get("taken", False) for run in runs):
        lines += [
            f"On a processor without units beyond AVX2 {taken} of the runs held to AVX2 are those "
            "in 32-true, to which a seed that was run both ways is equal to the last digit.",
            "",
        ]
    lines += [
        "| LSTM | arithmetic | seeds | least | median | greatest | each |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_lstm in results.groupby("lstm", sort=False):
        for arithmetic, some in [*of_lstm.groupby("arithmetic", sort=False), ("all", of_lstm)]:
            values = some.sort_values("seed")["auroc"]
            each = "" if arithmetic == "all" else ", ".join(f"{value:.3f}" for value in values)
            lines.append(
                f"| {name} | {arithmetic} | {len(values)} | {values.min():.3f} | "
                f"{statistics.median(values):.3f} | {values.max():.3f} | {each} |"
            )
    lines += _describe_seconds(runs)
    lines += ["", *(f"- {'yes' if ok else 'NO'}: {what}" for what, ok in judge(results)), ""]
    return "\n".join([*lines, *_describe_forms(runs)])


def _describe_seconds(runs: list[dict]) -> list[str]:
    """A table of seconds, of the runs that had the machine for themselves."""
    rows = []
    for arithmetic in ARITHMETICS:
        of_arithmetic = [run["seconds"] for run in runs if run["arithmetic"] == arithmetic]
        if seconds := [value for value in of_arithmetic if value is not None]:
            median = statistics.median(seconds)
            ends = f"({min(seconds):.0f} to {max(seconds):.0f}, of {len(seconds)})"
            rows.append(f"| {arithmetic} | {median:.0f} {ends} |")
    if not rows:
        return ["", "Other work ran beside all of these runs, so that their seconds say nothing."]
    head = "| arithmetic | seconds a run, median (least to greatest) |"
    return ["", head, "|---|---|", *rows]


#: How a probability of PE may follow from those of a negative and of an indeterminate study.
FORMS = {
    "(1 − negative)(1 − indeterminate)": pe_probability,
    "the same, given that not both are so": lambda n, i: (1 - n) * (1 - i) / (1 - n * i),
    "1 − negative − indeterminate, cut off at 0": lambda n, i: np.clip(1 - n - i, 0, 1),
}


def compare_forms(predictions: Path) -> dict[str, list[list[float]]]:
    """How well each of `FORMS` ranks and is calibrated in one run.

    Returns:
        Of each form, for each study-level model: the AUROC of PE present on the test studies, the
        Brier score, and the share of studies whose probability is exactly 0.
    """
    values = {form: [] for form in FORMS}
    for path in sorted(predictions.glob("*-study.parquet")):
        table = pd.read_parquet(path)
        table = table[table["split"] == "test"]
        truth = pe_probability(*(table[f"{name}_true"] for name in NO_PE_LABELS))
        for form, probability in FORMS.items():
            score = probability(*(table[name] for name in NO_PE_LABELS))
            brier, zeros = np.mean((truth - score) ** 2), np.mean(score == 0)
            values[form].append([float(v) for v in (roc_auc_score(truth, score), brier, zeros)])
    return values


def _describe_forms(runs: list[dict]) -> list[str]:
    lines = [
        "| probability of PE | models | AUROC, mean | Brier score, mean | studies at exactly 0 |",
        "|---|---|---|---|---|",
    ]
    for form in FORMS:
        values = [value for run in runs for value in run["forms"].get(form, [])]
        auroc, brier, zeros = np.mean(values, axis=0)
        lines.append(f"| {form} | {len(values)} | {auroc:.4f} | {brier:.4f} | {zeros:.1%} |")
    return [*lines, ""]


def judge(results: pd.DataFrame) -> list[tuple[str, bool]]:
    """What must hold of the grid, in words, and whether it does."""
    least, median = (results.groupby("lstm")["auroc"].agg(of) for of in ("min", "median"))
    checks = [
        (
            f"{name}: at least {LEAST[split_lstm_name(name)[1]]:.2f} in every run",
            value >= LEAST[split_lstm_name(name)[1]],
        )
        for name, value in least.items()
    ]
    combined = "combined-study"
    checks += [
        (
            f"{combined}: at least {LEAST_COMBINED:.2f} in every run",
            least[combined] >= LEAST_COMBINED,
        ),
        (
            f"{combined}: at least {LEAST_COMBINED_MEDIAN:.2f} in the median",
            median[combined] >= LEAST_COMBINED_MEDIAN,
        ),
    ]
    for level in ("study", "image"):
        for name, value in median.items():
            features, of = split_lstm_name(name)
            if of == level and features != "combined":
                what = f"combined-{level} is at most {WORSE} below {name} in the median"
                checks.append((what, median[f"combined-{level}"] >= value - WORSE))
    return checks


if __name__ == "__main__":
    main()
