"""Stage 1 to stage 2: a trained CNN turns slices into features."""

from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from clotline.backbones import Classifier, as_extractor, load_classifier
from clotline.checkpoint import load_checkpoint
from clotline.errors import ClotlineError
from clotline.features import create_features, features_size, write_features
from clotline.files import atomic, sha256
from clotline.progress import progress
from clotline.shards import read_rows
from clotline.slices import SliceLoader, StoredSlices, View, loading_processes
from clotline.training import make_fabric

#: Larger batches leave a CPU's cache.
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
        model: trained network, as of `clotline.backbones.as_extractor`.
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
    # Fabric's own wrapper would leave the precision out: it sees to that of ``forward`` alone.
    with create_features(path, rows, model.width, backbone, checkpoint) as file, torch.no_grad():
        row = 0
        batches = progress(loader, rows, "features", "slices", step=lambda b: len(b[0]))
        for inputs, _ in batches:
            # For this alone: in 16 bits inputs would lose more than all layers together.
            with fabric.autocast():
                values = model.features(fabric.to_device(inputs))
            values = values.float().cpu().numpy()
            with np.errstate(over="ignore"):
                values = values.astype(np.float16)
            if not np.isfinite(values).all():
                raise ClotlineError(
                    f"{backbone} gives infinite or NaN features from row {row} on: its training "
                    "has diverged. Lower its lr"
                )
            row = write_features(file, row, values)


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
    checkpoint = load_checkpoint(checkpoint_path)
    section = checkpoint["config"]
    fabric = make_fabric(section["precision"], gpus, threads)
    rows = read_rows(shard)
    view = View.of(section)
    slices = StoredSlices(rows.assign(file=shard, row=range(len(rows))), view, None)
    loader = SliceLoader(slices, BATCH_SIZE, fabric, loading_processes(threads, fabric))
    model = as_extractor(load_classifier(checkpoint, checkpoint_path), view.input_size)
    with atomic(path, need=features_size(len(rows), model.width)) as temporary:
        extract_features(model, loader, temporary, backbone, sha256(checkpoint_path), fabric)
