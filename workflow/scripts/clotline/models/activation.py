"""Class activation maps: where in a slice a CNN finds what raises its logit.

Grad-CAM (Selvaraju et al., ICCV 2017, doi 10.1109/ICCV.2017.74), as Captum computes it: the
channels of a feature map, each weighted by its mean gradient, summed, and negative sums set to 0.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam
from lightning_fabric import Fabric
from torch import Tensor, nn

from clotline.data.activation_file import Activation
from clotline.data.tables import uid_triples
from clotline.errors import ClotlineError
from clotline.job.progress import progress
from clotline.job.speed import loading_processes
from clotline.loading.planes import add_planes
from clotline.loading.preprocessing import View
from clotline.loading.slice_loader import SliceLoader, StoredSlices
from clotline.models.backbones import (
    Classifier,
    has_volumes,
    in_fast_layout,
    load_classifier,
)
from clotline.models.checkpoint import Checkpoint
from clotline.models.devices import make_fabric
from clotline.sections.cnn import CNNSection

BATCH_SIZE = 32


@dataclass(frozen=True)
class FeatureMap:
    """A feature map of a network, as what enters or leaves one of its modules.

    Attributes:
        module: the module.
        enters: whether the map enters the module; else it leaves it.
        shape: rows and columns.
    """

    module: nn.Module
    enters: bool
    shape: tuple[int, int]


def last_feature_map(model: nn.Module, inputs: Tensor, least: int = 2) -> FeatureMap:
    """The last feature map with at least ``least`` rows and columns, by a forward pass.

    Modules that a network uses more than once are skipped: their map would be ambiguous.

    Args:
        model: any network.
        inputs: (n, channels, s, s) inputs of the size that it will get.
        least: 2 is the last map before the average over all cells.

    Raises:
        ClotlineError: there is no such map.
    """
    dimensions = 5 if has_volumes(model) else 4
    seen: list[FeatureMap] = []
    calls: dict[nn.Module, int] = {}

    def note(module: nn.Module, value, enters: bool) -> None:
        value = value[0] if isinstance(value, tuple) and value else value
        if value is inputs or not isinstance(value, Tensor) or value.ndim != dimensions:
            return
        if min(value.shape[-2:]) >= least:
            seen.append(FeatureMap(module, enters, tuple(value.shape[-2:])))

    def before(module: nn.Module, values) -> None:
        calls[module] = calls.get(module, 0) + 1
        note(module, values, True)

    def after(module: nn.Module, _, value) -> None:
        note(module, value, False)

    hooks = [module.register_forward_pre_hook(before) for module in model.modules()]
    hooks += [module.register_forward_hook(after) for module in model.modules()]
    try:
        with torch.inference_mode():
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    once = [layer for layer in seen if calls[layer.module] == 1]
    if not once:
        raise ClotlineError(
            f"no layer of this network gives a feature map of {least} x {least} cells or more "
            f"for inputs of {inputs.shape[-1]} pixels: raise its input_size"
        )
    return once[-1]


def activation_maps(
    model: Classifier, loader: SliceLoader, fabric: Fabric, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """The maps and logits of all slices that ``loader`` gives, in its order.

    Args:
        model: trained network, in evaluation mode afterwards.
        loader: batches of (inputs, labels).
        fabric: device; in full precision, so that small gradients are not lost.
        least: as for `last_feature_map`.

    Returns:
        (n, rows, columns) float32, 0 or more; and (n,) float32.
    """
    # Only the map needs a gradient: without those of weights nothing before the map is kept.
    model = fabric.to_device(in_fast_layout(model))
    model.eval().requires_grad_(False)
    maps, logits, method = [], [], None
    batches = progress(loader, len(loader.dataset), "maps", "slices", step=lambda b: len(b[0]))
    for inputs, _ in batches:
        inputs = fabric.to_device(inputs)
        if method is None:
            layer = last_feature_map(model, inputs[:1], least)
            method = LayerGradCam(model, layer.module)
            # Captum keeps the logits of its own forward pass to itself.
            watch = model.register_forward_hook(
                lambda *passed: logits.append(passed[-1].detach().float().cpu().numpy())
            )
        made = method.attribute(
            inputs, attribute_to_layer_input=layer.enters, relu_attributions=True
        )
        made = made.detach()[:, 0].float()
        # Of a video network's planes the mean.
        maps.append((made.mean(1) if made.ndim == 4 else made).cpu().numpy())
    if method is not None:
        watch.remove()
    if not maps:
        return np.zeros((0, 1, 1), np.float32), np.zeros(0, np.float32)
    return np.concatenate(maps), np.concatenate(logits)


def map_slices(
    checkpoint_path: str | Path, slices: pd.DataFrame, gpus: int, threads: int
) -> Activation:
    """One CNN's maps of stored slices.

    Args:
        checkpoint_path: checkpoint of the CNN.
        slices: UIDs, ``file`` (path of the shard), ``row``, position, checksum and image label of
            each slice of whole scans.
        gpus: GPUs that the job was given.
        threads: threads of the job.

    Raises:
        ClotlineError: a file cannot be read, or the network has no feature map.
    """
    checkpoint = Checkpoint.load(checkpoint_path)
    section = CNNSection.of_checkpoint(checkpoint.config, checkpoint_path)
    view = View.of(section)
    fabric = make_fabric("32-true", gpus, threads)
    processes = loading_processes(threads, fabric)
    slices = add_planes(slices, view.planes, view.plane_distance_mm)
    loader = SliceLoader(StoredSlices(slices, view, None), BATCH_SIZE, fabric, processes)
    model = load_classifier(checkpoint, checkpoint_path)
    maps, logits = activation_maps(model, loader, fabric)
    return Activation(maps, logits, uid_triples(slices), view.crop)
