"""Training and features on a CUDA machine: ``python -m bench.gpu`` writes bench/results-gpu.md."""

import argparse
import datetime
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from bench import PROJECT, data
from bench.data import RSNA_SLICES
from bench.race import race
from bench.stages import default_config
from bench.tables import describe_machine, markdown
from clotline.job.speed import inference_batch_size, loading_processes
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.models.backbones import build_classifier, for_training
from clotline.models.devices import make_fabric
from clotline.models.extractor import as_extractor
from clotline.models.features import BATCH_SIZE, extract_features
from clotline.models.steps import Steps
from clotline.models.training import predict, train_epoch
from clotline.sections.cnn import CNNSection, cnn_sections

#: Slices of one turn of training, and how often they come in one of validation and of features,
#: which are faster: enough for the start of loading processes to count for little.
SLICES, REPEATED = 24_000, 4
#: Share of a turn's steps that the bare contestant does: they are all alike.
BARE = 0.2
#: Slices of an epoch of the full recipe.
EPOCH_TRAINED, EPOCH_VALIDATED = 140_000, 53_080
#: That the rules ask for.
THREADS = 8
REACH = 0.9
RESULTS = PROJECT / "bench/results-gpu.md"
HEAD = ["stage", "from shards", "bare step", "share", "to reach", "GPU utilisation"]


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes:
        what: stage and network.
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
    """The GPU's mean utilisation, in percent, while ``with`` blocks run."""

    def __init__(self):
        self._seen: list[int] = []

    def __enter__(self) -> None:
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]
        self._process = subprocess.Popen(
            ["nvidia-smi", "--id=0", *query], stdout=subprocess.PIPE, encoding="utf-8"
        )

    def __exit__(self, *_) -> None:
        self._process.terminate()
        output, _ = self._process.communicate()
        self._seen += map(int, output.split())

    @property
    def mean(self) -> float:
        """Of all blocks."""
        return statistics.fmean(self._seen or [math.nan])


def measure(
    name: str, section: CNNSection, rows: pd.DataFrame, folder: Path, threads: int
) -> Iterator[Measured]:
    """Training, validation and features of one network.

    Args:
        name: the network.
        section: its entry of the configuration.
        rows: slices of one turn of training.
        folder: for the features.
        threads: that load slices.
    """
    fabric = make_fabric(section.precision, gpus=1, threads=threads)
    view, processes = View.of(section), loading_processes(threads, fabric)

    def loaded(times: int, size: int, augment=None, train: bool = False) -> SliceLoader:
        slices = StoredSlices(pd.concat([rows] * times), view, augment)
        return SliceLoader(slices, size, fabric, processes, train)

    def steps() -> Steps:
        torch.manual_seed(0)
        model = for_training(section)
        return Steps(model, section, 10**6, fabric)

    mine, bare = steps(), steps()
    augmented = loaded(1, section.batch_size, (0, 0), train=True)
    inputs, targets = next(iter(augmented))
    bare.model.train()
    yield _against(
        *(f"training {name}", lambda: train_epoch(mine, augmented, 1)),
        *(lambda: bare(inputs, targets), augmented),
    )

    valid = loaded(REPEATED, inference_batch_size(section.batch_size, fabric))
    some, _ = next(iter(valid))

    def judge() -> None:
        with torch.inference_mode():
            mine.model.eval()(some)

    yield _against(
        f"validating {name}", lambda: predict(mine.model, valid, fabric, 1), judge, valid
    )

    model = fabric.to_device(as_extractor(build_classifier(section), section.input_size))
    central = loaded(REPEATED, inference_batch_size(BATCH_SIZE, fabric))

    def forward() -> None:
        with torch.no_grad(), fabric.autocast():
            model.features(some)

    yield _against(
        f"features of {name}",
        lambda: extract_features(model, central, folder / "f.h5", name, "0" * 64, fabric),
        *(forward, central),
    )


def _against(
    what: str, whole: Callable[[], object], step: Callable[[], object], loader: SliceLoader
) -> Measured:
    """Races all that ``loader`` gives against as good as as many bare steps."""
    used, (first, _) = Utilisation(), next(iter(loader))
    count = max(1, round(BARE * len(loader)))

    def ours() -> int:
        with used:
            whole()
            torch.cuda.synchronize()
        return len(loader.dataset)

    def bare() -> int:
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        return count * len(first)

    rates = race({"whole": ours, "bare": bare})
    pairs = zip(rates["whole"], rates["bare"], strict=True)
    share = statistics.median(one / other for one, other in pairs)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    found = Measured(what, middle["whole"], middle["bare"], share, used.mean)
    print(f"{found.what}: {found.rate:,.0f} slices/s, {found.share:.0%}", flush=True)
    return found


def projected_hours(found: list[Measured], epochs: int) -> float:
    """Hours of one GPU for the full recipe of both networks on the whole RSNA set."""
    seconds = 0.0
    for training, validation, features in zip(found[::3], found[1::3], found[2::3], strict=True):
        epoch = EPOCH_TRAINED / training.rate + EPOCH_VALIDATED / validation.rate
        seconds += epochs * epoch + RSNA_SLICES / features.rate
    return seconds / 3600


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--slices", type=int, default=SLICES, help="in one turn of training")
    parser.add_argument("--threads", type=int, default=THREADS, help="that load slices")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        _say_not_measured()
        parser.exit(1, "not measured: torch finds no CUDA device on this machine\n")
    sections, found = cnn_sections(default_config()), []
    with tempfile.TemporaryDirectory(prefix="clotline-bench-") as place:
        folder = Path(place)
        cohort = data.make_cohort(folder / "cohort", 400)
        rows = data.repeat_shard(cohort, folder / "slices.h5", arguments.slices)
        for name, section in sections.items():
            found += measure(name, section, rows, folder, arguments.threads)
    text = _report(found, sections["resnext50"].epochs, arguments)
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def _report(found: list[Measured], epochs: int, arguments: argparse.Namespace) -> str:
    lines = [
        (
            *(m.what, f"{m.rate:,.0f} slices/s", f"{m.bare:,.0f} slices/s", f"{m.share:.0%}"),
            *(f"{REACH:.0%}", f"{m.utilisation:.0f}%"),
        )
        for m in found
    ]
    slices, threads = arguments.slices, arguments.threads
    return (
        f"# On a GPU\n\nMeasured by `python -m bench.gpu --slices {slices} --threads {threads}` on "
        f"{datetime.date.today():%Y-%m-%d}: {torch.cuda.get_device_name()}, {threads} loading "
        f"processes; {describe_machine()}. In each turn {slices:,} slices are trained on, and "
        f"{REPEATED * slices:,} validated or made features of; the start of the loading processes "
        f"counts.\n\n{markdown(HEAD, lines)}\nThe full recipe, {epochs} epochs of both networks "
        f"and the features of {RSNA_SLICES:,} slices, would take "
        f"{projected_hours(found, epochs):.1f} hours of one such GPU.\n"
    )


def _say_not_measured() -> None:
    """Leaves a table without figures, unless there is one with them."""
    if RESULTS.exists():
        return
    none = "not measured"
    lines = [
        [f"{what} {name}", none, none, none, f"{REACH:.0%}", none]
        for name in default_config()["cnn"]
        for what in ("training", "validating", "features of")
    ]
    RESULTS.write_text(
        "# On a GPU\n\nNot measured yet: `make bench-gpu` on a CUDA machine fills this in.\n\n"
        + markdown(HEAD, lines),
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    main()
