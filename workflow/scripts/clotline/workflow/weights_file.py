"""What a file of weights is, read without torch and without its tensors.

A file that ``torch.save`` wrote is a ZIP archive whose member ``data.pkl`` names each tensor with
its shape; before torch 1.6 it was a series of pickles. No code of theirs is run: of all that a
pickle can name, only what rebuilds tensors and dicts is accepted, and only shapes are kept.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

#: First of the pickles of a file from before torch 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

#: The largest ``data.pkl`` that is read, in bytes: those of real networks have 100 KB.
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights says of itself.

    Attributes:
        shapes: parameter's name to its tensor's shape.
        about: what a Clotline checkpoint holds beside its weights; empty for a bare state dict.
    """

    shapes: dict[str, tuple[int, ...]]
    about: dict[str, Any] = field(default_factory=dict)


class _Shape(tuple):
    """Stands for a tensor."""

    def __setstate__(self, state):  # tensors with attributes of their own
        pass


def _rebuild(storage, offset, size, *_):
    return _Shape(size)


def _parameter(data, *_):
    return data


class NoWeightsError(Exception):
    """A file holds no weights; the message says what it is instead, without its path."""


class _ForeignError(Exception):
    """The pickle holds anything but tensors and plain values."""


class _ShapeReader(pickle.Unpickler):
    _KNOWN: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        ("torch._utils", "_rebuild_tensor"): _rebuild,
        ("torch._utils", "_rebuild_parameter"): _parameter,
    }

    def find_class(self, module, name):
        if (module, name) in self._KNOWN:
            return self._KNOWN[module, name]
        if module in ("torch", "torch.storage") and (name.endswith("Storage")):
            return name
        raise _ForeignError(f"{module}.{name}")

    def persistent_load(self, pid):
        return None


def read_weights_file(path: str | Path) -> WeightsFile:
    """What a file of weights holds.

    Raises:
        NoWeightsError: it is no such file.
    """
    try:
        content = _content(Path(path))
    except _ForeignError as foreign:
        raise NoWeightsError(
            f"a pickle of Python objects ({foreign}), not a file of tensors alone"
        ) from None
    except (OSError, zipfile.BadZipFile) as error:
        raise NoWeightsError(f"a file that cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise NoWeightsError("a single tensor or list, not weights by their names")
    weights = content.get("weights", content)
    about = {key: value for key, value in content.items() if key != "weights"}
    shapes = {}
    if isinstance(weights, dict):
        shapes = {name: tuple(v) for name, v in weights.items() if isinstance(v, _Shape)}
    if not shapes:
        raise NoWeightsError("a file without a single tensor")
    return WeightsFile(shapes, about if weights is not content else {})


def _content(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"PK":
            return _unpickled(_data_of_archive(path))
        if start[:1] == b"\x80":
            return _legacy(file)
    raise NoWeightsError(
        "an empty file" if not start else "no file that torch.save wrote (neither ZIP nor pickle)"
    )


def _data_of_archive(path: Path) -> io.BytesIO:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise NoWeightsError("a ZIP archive that torch.save did not write: it has no data.pkl")
        if archive.getinfo(names[0]).file_size > _MOST_BYTES:
            raise NoWeightsError("a ZIP archive with a data.pkl larger than any network's")
        return io.BytesIO(archive.read(names[0]))


def _legacy(file) -> Any:
    if _unpickled(file) != _LEGACY_MAGIC:
        raise _ForeignError("such as pickle.dump or joblib write")
    _unpickled(file)  # the protocol's version
    _unpickled(file)  # the machine's byte order
    return _unpickled(file)


def _unpickled(file) -> Any:
    try:
        return _ShapeReader(file).load()
    except _ForeignError:
        raise
    except Exception as error:  # on damaged bytes pickle raises nearly every type of exception
        raise NoWeightsError(f"a damaged file ({type(error).__name__}: {error})") from None
