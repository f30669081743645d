"""Two processes train as one does: on a CPU here, and in the same way on several GPUs."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from clotline.errors import ClotlineError
from clotline.loading.batches import process_batches

SCRIPTS = Path(__file__).parents[3] / "workflow/scripts"

#: Trains with so many processes; each notes the places of the data set that it read.
TRAIN = """
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from clotline.errors import ClotlineError
from clotline.loading.batches import process_batches
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_training_fabric
from clotline.models.monitoring import auroc
from clotline.sections.recipe import Recipe
from clotline.models.training import fit, save_fitted, train_together

processes, folder, weight = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
fabric = make_training_fabric("32-true", gpus=0, threads=1, processes=processes)
recipe = Recipe(3, "sgd", 0.1, 0.9, 1e-4, "one_cycle", 0.3, [], 1.0, "32-true", "best", 1, 0)
rng = np.random.default_rng(0)
x = rng.normal(size=(38, 8)).astype(np.float32)
y = (x[:, 0] > x[:, 1]).astype(np.float32)


class Places(Dataset):
    def __init__(self, name):
        self.name = name

    def __getitem__(self, place):
        with (folder / f"{self.name}-{fabric.global_rank}").open("a") as file:
            file.write(f"{place}\\n")
        return torch.from_numpy(x[place]) * weight, torch.tensor(y[place])


def batches(name, order):
    parts = process_batches(order, 7, fabric)
    return DataLoader(Places(name), batch_sampler=parts)


def run():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
    return fit(
        model,
        recipe,
        lambda epoch: batches(f"train-{epoch}", np.random.default_rng(epoch).permutation(38)),
        batches("valid", range(19)),
        auroc,
        fabric,
        folder / "state.pt",
        seed=3,
        train_base_loss=0.69,
    )


try:
    fitted = train_together(fabric, run, folder / "state.pt")
except ClotlineError as error:
    print(error)
    sys.exit(3)
about = partial(Checkpoint, kind="cnn", name="a", config={}, seed=7, width=8)
save_fitted(fitted, about, folder / "history.csv", folder / "best.pt")
"""


def train(processes, folder, weight=1.0):
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(processes), str(folder), str(weight)],
        env={"PATH": "", "PYTHONPATH": str(SCRIPTS), "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "x"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def places(folder, name):
    """What each process read."""
    files = sorted(folder.glob(f"{name}-?"))
    return [np.array(file.read_text().split(), int) for file in files]


def test_two_processes_train_to_what_one_does(tmp_path):
    histories = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        done = train(processes, folder)
        assert done.returncode == 0, done.stderr
        histories.append(pd.read_csv(folder / "history.csv"))
        for epoch in range(3):
            read = places(folder, f"train-{epoch}")
            assert len(read) == processes
            assert sorted(np.concatenate(read)) == list(range(38))
        read = places(folder, "valid")
        assert len(read) == processes
        # Once an epoch.
        assert sorted(np.concatenate(read)) == sorted(3 * list(range(19)))
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)


def test_a_loss_that_is_not_finite_ends_both_with_one_message(tmp_path):
    done = train(2, tmp_path / "2", weight=1e38)
    assert done.returncode == 3
    assert "the loss became" in done.stdout
    assert "epoch 1, batch" in done.stdout
    assert not (tmp_path / "2/best.pt").exists()


@pytest.mark.parametrize("size", [*range(1, 30), 64, 97])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("least", [1, 2])
def test_each_place_goes_to_one_process_and_no_process_goes_without(size, processes, least):
    order = np.random.default_rng(size).permutation(size)
    of_each = [
        process_batches(order, 8, SimpleNamespace(global_rank=rank, world_size=processes), least)
        for rank in range(processes)
    ]
    assert len({len(batches) for batches in of_each}) == 1
    flat = [place for batches in of_each for batch in batches for place in batch]
    assert sorted(flat) == list(range(size))
    if size >= least * processes:
        assert all(len(batch) >= least for batches in of_each for batch in batches)
    if processes == 1:
        assert [place for batch in of_each[0] for place in batch] == order.tolist()


def test_a_batch_too_small_for_the_processes_is_an_error_that_says_what_to_set():
    fabric = SimpleNamespace(global_rank=0, world_size=4)
    with pytest.raises(ClotlineError, match=r"batch_size is 2, too small for 4 .* set it to 8 or"):
        process_batches(range(8), 2, fabric, least=2)
