"""Training and features on a CUDA machine: ``python -m bench.gpu`` writes bench/results-gpu.md."""

import argparse
import datetime
import os
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from bench import PROJECT, data
from bench.data import RSNA_SLICES
from bench.race import race
from bench.stages import default_config
from bench.tables import describe_machine, markdown
from clotline.backbones import as_extractor, build_classifier
from clotline.extraction import BATCH_SIZE, extract_features
from clotline.slices import SliceLoader, StoredSlices, View, loading_processes
from clotline.training import Recipe, make_fabric, train_epoch

#: Slices of one turn.
SLICES = 16_000
#: Slices of an epoch of the full recipe: training, and validation at the pace of features.
EPOCH_TRAINED, EPOCH_VALIDATED = 140_000, 53_080
REACH = 0.9
RESULTS = PROJECT / "bench/results-gpu.md"
HEAD = ["stage", "from shards", "bare step", "share", "to reach", "GPU utilisation"]


@dataclass(frozen=True)
class Measured:
    """One network's part of the table.

    Attributes:
        what: network and stage.
        rate: slices/s from the shard to the end.
        bare: slices/s of the bare step on tensors on the GPU.
        share: median of the rounds' ratios of the two.
        utilisation: mean share of the time in which the GPU computed, in percent.
    """

    what: str
    rate: float
    bare: float
    share: float
    utilisation: float


class Utilisation:
    """The GPU's mean utilisation, in percent, while a ``with`` block runs."""

    def __enter__(self) -> "Utilisation":
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]
        self._process = subprocess.Popen(
            ["nvidia-smi", "--id=0", *query], stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        output, _ = self._process.communicate()
        self.mean = statistics.fmean(map(int, output.split()))


def measure(name: str, section: dict, rows, folder: Path, threads: int) -> list[Measured]:
    """Training and features of one network."""
    fabric = make_fabric(section["precision"], gpus=1, threads=threads)
    recipe, view = Recipe.of(section), View.of(section)

    def trainer():
        torch.manual_seed(0)
        model = build_classifier(section).to(memory_format=torch.channels_last)
        model, optimizer = fabric.setup(model, recipe.optimizer(model))
        return model, optimizer, recipe.scheduler(optimizer, 10**6)

    mine, bare = trainer(), trainer()
    processes = loading_processes(threads, fabric)
    augmented = StoredSlices(rows, view, (0, 0))
    loader = SliceLoader(augmented, section["batch_size"], fabric, processes, train=True)
    inputs, targets = next(iter(loader))

    def train() -> int:
        train_epoch(*mine, loader, recipe.clip_norm, fabric, 1)
        torch.cuda.synchronize()
        return len(rows)

    def bare_steps() -> int:
        model, optimizer, _ = bare
        model.train()
        for _ in range(len(loader)):
            optimizer.zero_grad()
            loss = binary_cross_entropy_with_logits(model(inputs).float(), targets)
            fabric.backward(loss)
            optimizer.step()
        torch.cuda.synchronize()
        return len(rows)

    model = fabric.to_device(as_extractor(build_classifier(section), section["input_size"]))
    central = SliceLoader(StoredSlices(rows, view, None), BATCH_SIZE, fabric, processes)

    def features() -> int:
        extract_features(model, central, folder / "features.h5", name, "0" * 64, fabric)
        return len(rows)

    batch = next(iter(central))[0]

    def bare_forward() -> int:
        with torch.no_grad(), fabric.autocast():
            for _ in range(len(central)):
                model.features(batch)
        torch.cuda.synchronize()
        return len(rows)

    return [
        _against(f"training {name}", train, bare_steps),
        _against(f"features of {name}", features, bare_forward),
    ]


def _against(what: str, whole, bare) -> Measured:
    rates = race({"whole": whole, "bare": bare})
    with Utilisation() as used:
        whole()
    pairs = zip(rates["whole"], rates["bare"], strict=True)
    share = statistics.median(one / other for one, other in pairs)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    return Measured(what, middle["whole"], middle["bare"], share, used.mean)


def projected_hours(found: list[Measured], epochs: int) -> float:
    """Hours of one GPU for the full recipe of both networks on the whole RSNA set."""
    hours = 0.0
    for training, features in zip(found[::2], found[1::2], strict=True):
        epoch = EPOCH_TRAINED / training.rate + EPOCH_VALIDATED / features.rate
        hours += (epochs * epoch + RSNA_SLICES / features.rate) / 3600
    return hours


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--slices", type=int, default=SLICES, help="in one turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that load slices")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        _say_not_measured()
        parser.exit(1, "not measured: torch finds no CUDA device on this machine\n")
    config, found = default_config(), []
    with tempfile.TemporaryDirectory(prefix="clotline-bench-") as place:
        folder = Path(place)
        cohort = data.make_cohort(folder / "cohort", 400)
        rows = data.repeat_shard(cohort, folder / "slices.h5", arguments.slices)
        for name, section in config["cnn"].items():
            found += measure(name, section, rows, folder, arguments.threads)
    lines = [
        (
            *(m.what, f"{m.rate:,.0f} slices/s", f"{m.bare:,.0f} slices/s", f"{m.share:.0%}"),
            *(f"{REACH:.0%}", f"{m.utilisation:.0f}%"),
        )
        for m in found
    ]
    epochs = config["cnn"]["resnext50"]["epochs"]
    text = (
        f"# On a GPU\n\nMeasured by `make bench-gpu` on {datetime.date.today():%Y-%m-%d}: "
        f"{torch.cuda.get_device_name()}, {arguments.threads} loading processes; "
        f"{describe_machine()}.\n\n{markdown(HEAD, lines)}\nThe full recipe, "
        f"{epochs} epochs of both networks and the features of {RSNA_SLICES:,} slices, would take "
        f"{projected_hours(found, epochs):.1f} hours of one such GPU.\n"
    )
    print(text)
    RESULTS.write_text(text)


def _say_not_measured() -> None:
    """Leaves a table without figures, unless there is one with them."""
    if RESULTS.exists():
        return
    none = "not measured"
    lines = [
        [f"{what} {name}", none, none, none, f"{REACH:.0%}", none]
        for name in default_config()["cnn"]
        for what in ("training", "features of")
    ]
    RESULTS.write_text(
        "# On a GPU\n\nNot measured yet: `make bench-gpu` on a CUDA machine fills this in.\n\n"
        + markdown(HEAD, lines)
    )


if __name__ == "__main__":
    main()
