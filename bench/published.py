"""The published way of each stage, as its description says, to be compared with.

The recipe: ingest in one process, one uncompressed 512 × 512 dataset a slice, named study/SOP;
training reads them one by one, resizes to 256, crops 224, in float32 and torch's default memory
format, 16 slices a batch; features one slice at a time through a forward hook; LSTMs one study at a
time, its features one HDF5 dataset a slice.
"""

from pathlib import Path

import cv2
import h5py
import numpy as np
import pydicom
import torch
from efficientnet_pytorch import EfficientNet
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_UID, UIDS
from clotline.models.backbones import Classifier, build_classifier
from clotline.sections.cnn import CNNSection

CROP, RESIZED = 224, 256


def ingest(rows, folder: Path, path: Path) -> int:
    """DICOM files to one dataset a slice; gives the number of slices."""
    with h5py.File(path, "w") as file:
        for study, series, sop in rows[list(UIDS)].itertuples(index=False):
            dataset = pydicom.dcmread(folder / study / series / f"{sop}.dcm")
            pixels = dataset.pixel_array * float(dataset.RescaleSlope)
            pixels += float(dataset.RescaleIntercept)
            file[f"{study}/{sop}"] = pixels.astype(np.int16)
    return len(rows)


class Slices(Dataset):
    """Slices of such a file as (input, label) pairs: (1, 224, 224) float32 and a scalar."""

    def __init__(self, path: Path, rows):
        self.path, self.file = path, None
        self.names = (rows[STUDY_UID] + "/" + rows[SOP_UID]).tolist()
        self.labels = rows[IMAGE_LABEL].to_numpy(np.float32)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int):
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        pixels = self.file[self.names[place]][:].astype(np.float32)
        pixels = cv2.resize(pixels, (RESIZED, RESIZED))
        top, left = np.random.randint(0, RESIZED - CROP, 2)  # noqa: NPY002 - as published
        pixels = pixels[top : top + CROP, left : left + CROP]
        pixels = (np.clip(pixels, -250, 450) + 250) / 700
        if np.random.random() < 0.5:  # noqa: NPY002
            pixels = pixels[::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels)[None]), self.labels[place]


def slice_batches(slices: Slices, processes: int = 1) -> DataLoader:
    """Batches for training, loaded by so many processes beside this one."""
    return DataLoader(slices, 16, shuffle=True, num_workers=processes)


def network(section: CNNSection) -> Classifier:
    """The network of one ``cnn`` entry of the configuration as its library builds it."""
    if section.library == "torchvision":
        return build_classifier(section)
    return Classifier(EfficientNet.from_name(section.architecture, in_channels=1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches) -> int:
    """Steps in float32; gives the number of first-axis items of all inputs."""
    model.train()
    count = 0
    for inputs, targets in batches:
        optimizer.zero_grad()
        logits = model(inputs)
        binary_cross_entropy_with_logits(logits, targets.view_as(logits)).backward()
        optimizer.step()
        count += len(inputs)
    return count


@torch.no_grad()
def features(model: nn.Module, slices: Slices, path: Path) -> int:
    """One slice at a time through a forward hook on the head; one dataset a slice."""
    model.eval()
    kept = []
    hook = model.head.register_forward_hook(lambda module, inputs, output: kept.append(inputs[0]))
    with h5py.File(path, "w") as file:
        for place, name in enumerate(slices.names):
            model(slices[place][0][None])
            file[name] = kept.pop()[0].numpy()
    hook.remove()
    return len(slices)


class Studies(Dataset):
    """Studies of a features file of one dataset a slice: ((slices, width), targets), float32."""

    def __init__(self, path: Path, names: list[list[str]], targets: list):
        self.path, self.names, self.targets, self.file = path, names, targets, None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int):
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        features = np.stack([self.file[name][:] for name in self.names[place]])
        return torch.from_numpy(features), torch.as_tensor(self.targets[place])


def study_batches(studies: Studies) -> DataLoader:
    """One study a batch."""
    return DataLoader(studies, 1, shuffle=True)
