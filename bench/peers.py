"""Other libraries' ways from a series' files to Hounsfield units at 256 × 256, on one core."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import SimpleITK

from bench import realct
from bench.race import ROUNDS, Ratio, race, ratio
from clotline.data.dicom.ct_slice import read_slice
from clotline.grid import SIZE

#: Peers that the project does not need, installed into a folder of the benchmark's own.
INSTALLED = ("monai==1.6.1", "dicomsdl==0.109.4")


def all_peers(real: Path, folder: Path, rounds: int = ROUNDS) -> Iterator[Ratio]:
    """Slices a second beside each peer, uncompressed and as lossless JPEG.

    Args:
        real: data in the competition's layout; its first study of `bench.realct.predictable`.
        folder: an empty one.
        rounds: turns of each.

    Raises:
        AssertionError: a peer's pixels differ from ours by more than rounding.
    """
    study = realct.predictable(real)[0]
    encoded = realct.encode(real, folder, [study.name], ("uncompressed", "JPEG Lossless"))
    readers = _readers(folder / "installed")
    for name, of_encoding in encoded.items():
        series = next((of_encoding / "train").glob("*/*"))
        files = sorted(series.iterdir(), key=lambda path: read_slice(path).position)
        with _one_core():
            expected = _ours(files)
            for peer, read in readers.items():
                worst = np.abs(read(files) - expected).max()
                assert worst <= 1, f"{peer} differs by {worst} HU"
            contestants = {"ours": _ours, **readers}
            turns = {who: partial(_count, read, files) for who, read in contestants.items()}
            rates = race(turns, rounds)
        for peer in readers:
            what = f"files → HU at {SIZE} × {SIZE}, one core, {name}"
            yield ratio(what, "slices/s", rates["ours"], peer, rates[peer], 1)


Reader = Callable[[list[Path]], np.ndarray]


def _readers(target: Path) -> dict[str, Reader]:
    """Peer and its version to what reads ordered files into (slices, 256, 256) HU."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", target, *INSTALLED], check=True)
    sys.path.append(str(target))
    import dicomsdl
    from monai.transforms import LoadImage

    load = LoadImage(reader="PydicomReader", image_only=True)

    def simpleitk(files: list[Path]) -> np.ndarray:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(list(map(str, files)))
        image = reader.Execute()  # which owns the pixels
        return _resized(SimpleITK.GetArrayViewFromImage(image))

    def monai(files: list[Path]) -> np.ndarray:
        # It orders a folder's files itself: columns, rows, slices from the head to the feet.
        return _resized(np.asarray(load(files[0].parent)).T[::-1])

    def sdl(files: list[Path]) -> np.ndarray:
        opened = (dicomsdl.open(str(path)) for path in files)
        return _resized(dataset.pixelData(storedvalue=False) for dataset in opened)

    versions = dict(package.split("==") for package in INSTALLED)
    return {
        f"SimpleITK {version('SimpleITK')}, series reader": simpleitk,
        f"MONAI {versions['monai']}, LoadImage": monai,
        f"dicomsdl {versions['dicomsdl']}": sdl,
    }


def _count(read: Reader, files: list[Path]) -> int:
    return len(read(files))


def _ours(files: list[Path]) -> np.ndarray:
    return np.stack([read_slice(path).pixels for path in files])


def _resized(slices) -> np.ndarray:
    area = cv2.INTER_AREA
    return np.stack([cv2.resize(values, (SIZE, SIZE), interpolation=area) for values in slices])


@contextmanager
def _one_core() -> Iterator[None]:
    cores, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    os.sched_setaffinity(0, {min(cores)})
    cv2.setNumThreads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        cv2.setNumThreads(threads)
