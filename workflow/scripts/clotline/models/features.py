"""Stage 1 to stage 2: a trained CNN turns slices into features."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.functional import pad

from clotline.data.features_file import create_features, features_size, write_features
from clotline.data.shards import read_rows
from clotline.errors import ClotlineError
from clotline.job.files import atomic, sha256
from clotline.job.progress import progress
from clotline.job.speed import inference_batch_size, loading_processes
from clotline.loading.planes import add_planes
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.models.backbones import Classifier, load_classifier
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_fabric
from clotline.models.extractor import as_extractor
from clotline.sections.cnn import CNNSection

#: Slices per batch on a CPU; larger batches do not stay in its cache.
BATCH_SIZE = 32


def extract_features(
    model: Classifier,
    loader: SliceLoader,
    path: str | Path,
    backbone: str,
    checkpoint: str,
    fabric: Fabric,
) -> None:
    """Writes the features of all slices that ``loader`` gives, in its order.

    Args:
        model: trained network, as of `clotline.models.extractor.as_extractor`.
        loader: batches of (inputs, labels).
        path: features file to write.
        backbone: the network's name in the configuration.
        checkpoint: SHA-256 of its checkpoint.
        fabric: device and precision.

    Raises:
        ClotlineError: a feature is infinite or NaN, or too large for float16.
    """
    model = fabric.to_device(model).eval()
    rows = len(loader.dataset)
    with create_features(path, rows, model.width, backbone, checkpoint) as file:
        row = 0
        batches = progress(loader, rows, "features", "slices", step=lambda b: len(b[0]))
        for values in _features(model, (inputs for inputs, _ in batches), fabric):
            if not np.isfinite(values).all():
                raise ClotlineError(
                    f"{backbone} gives infinite or NaN features from row {row} on: its training "
                    "has diverged. Lower its lr"
                )
            row = write_features(file, row, values)


def _features(model: Classifier, batches: Iterable[Tensor], fabric: Fabric) -> Iterator[np.ndarray]:
    """The features of each batch, (n, width) float16, while a GPU computes the next."""
    before, size = None, 0
    for inputs in batches:
        inputs = fabric.to_device(inputs)
        count = len(inputs)
        size = max(size, count)
        if fabric.device.type == "cuda":
            # To the size of the others: choosing kernels for another size takes seconds.
            inputs = pad(inputs, (0, 0) * 3 + (0, size - count))
        # Fabric's own wrapper sets the precision of ``forward`` alone. Only the layers get it: in
        # 16 bits the inputs would lose more than all layers together.
        with torch.no_grad(), fabric.autocast():
            values = model.features(inputs)
        coming = _Coming(values[:count].float().half())
        if before:
            yield before.wait()
        before = coming
    if before:
        yield before.wait()


class _Coming:
    """A tensor on its way to the CPU."""

    def __init__(self, values: Tensor):
        self._values = values.to("cpu", non_blocking=True)
        self._there = None
        if values.device.type == "cuda":
            self._there = torch.cuda.Event()
            self._there.record()

    def wait(self) -> np.ndarray:
        if self._there:
            self._there.synchronize()
        return self._values.numpy()


def extract_shard_features(
    checkpoint_path: str | Path,
    shard: str | Path,
    path: str | Path,
    backbone: str,
    gpus: int,
    threads: int,
) -> None:
    """Writes the features of a shard's slices, in the shard's order.

    Args:
        checkpoint_path: checkpoint of the CNN.
        shard: shard file.
        path: features file to write.
        backbone: the network's name.
        gpus: GPUs that the job was given.
        threads: threads of the job.

    Raises:
        ClotlineError: as `extract_features`, or a file cannot be read.
    """
    checkpoint = Checkpoint.load(checkpoint_path)
    section = CNNSection.of_checkpoint(checkpoint.config, checkpoint_path)
    fabric = make_fabric(section.precision, gpus, threads)
    rows = read_rows(shard)
    view = View.of(section)
    table = rows.assign(file=shard, row=range(len(rows)))
    table = add_planes(table, view.planes, view.plane_distance_mm)
    slices = StoredSlices(table, view, None)
    size = inference_batch_size(BATCH_SIZE, fabric)
    loader = SliceLoader(slices, size, fabric, loading_processes(threads, fabric))
    model = as_extractor(load_classifier(checkpoint, checkpoint_path), view.input_size)
    with atomic(path, need=features_size(len(rows), model.width)) as temporary:
        extract_features(model, loader, temporary, backbone, sha256(checkpoint_path), fabric)
