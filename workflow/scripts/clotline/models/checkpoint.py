"""Checkpoints: tensors and plain values only, so that loading one can never run code."""

import io
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch

from clotline.errors import ClotlineError
from clotline.job.files import atomic, unusable
from clotline.version import CLOTLINE_VERSION

FORMAT, VERSION = "clotline-checkpoint", 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network. Its file is a dict of these fields.

    Attributes:
        clotline: version of the Clotline that trained it.
        kind: cnn or lstm.
        name: of the backbone, or <features>-<level>.
        config: its section of the configuration.
        seed: of the training.
        width: features per slice, that a CNN gives or an LSTM reads.
        epoch: that the weights are of, from 1; 0 where nothing was trained.
        weights: state dict.
    """

    clotline: str = CLOTLINE_VERSION
    kind: str
    name: str
    config: dict
    seed: int
    width: int
    epoch: int
    weights: dict[str, torch.Tensor]

    #: What files say that are older than a field, by field.
    BEFORE: ClassVar[dict[str, Any]] = {"clotline": "before 0.9.0"}

    def save(self, path: str | os.PathLike) -> None:
        """Writes it."""
        save_checkpoint(path, vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Checkpoint":
        """Reads what `save` wrote, onto the CPU.

        Raises:
            ClotlineError: as of `load_checkpoint`, or the file lacks a field: it holds the state
                of an unfinished training, say.
        """
        content = cls.BEFORE | load_checkpoint(path)
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in content]:
            raise ClotlineError(
                f"{path} is no trained network: it lacks {', '.join(missing)}. Name a checkpoint "
                "as under results/cnn or results/lstm"
            )
        return cls(**{name: content[name] for name in names})


def save_checkpoint(path: str | os.PathLike, content: dict) -> None:
    """Writes a checkpoint, or the state of an unfinished training, in one step.

    Args:
        path: file to write.
        content: nested dicts and lists of tensors, numbers, strings and None.
    """
    # Through memory: torch.save would write the file's own name into it, and the same weights
    # would have different bytes under different names.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION} | content, buffer)
    with atomic(path, need=buffer.tell()) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: str | os.PathLike) -> dict:
    """Reads what `save_checkpoint` wrote, onto the CPU.

    Raises:
        ClotlineError: the file is missing, damaged, of another format, or holds anything but
            tensors and plain values.
    """
    _check_records(path)
    content = load_tensors(path)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        maker = f": Clotline {content['clotline']} made it" if "clotline" in content else ""
        raise ClotlineError(f"{path} is no {FORMAT} of version {VERSION}{maker}")
    return content


def _check_records(path: str | os.PathLike) -> None:
    """Checks the CRC-32 of each record of the file, a ZIP archive; torch itself does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except FileNotFoundError:
        raise ClotlineError(f"there is no checkpoint {path}") from None
    except Exception as error:
        # On damaged bytes the reader raises nearly every exception there is.
        raise unusable(path, error) from None
    if wrong:
        raise unusable(path, f"its record {wrong} does not fit its checksum")


def load_tensors(path: str | os.PathLike) -> dict:
    """Reads any file that ``torch.save`` made of tensors and plain values, onto the CPU.

    Raises:
        ClotlineError: the file is missing, damaged, or holds anything else.
    """
    try:
        content = torch.load(Path(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ClotlineError(f"there is no checkpoint {path}") from None
    except Exception as error:
        # On damaged bytes torch's reader raises nearly every exception there is.
        raise unusable(path, error) from None
    if not isinstance(content, dict):
        raise ClotlineError(f"the checkpoint {path} holds no dictionary of tensors")
    return content


def load_weights(module: torch.nn.Module, weights: dict, path: str | os.PathLike) -> None:
    """Loads a state dict into a module.

    Raises:
        ClotlineError: names or shapes do not fit; with the file and the first differences.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = "\n".join(str(error).splitlines()[:6])
        raise ClotlineError(f"{path} does not fit this network: {lines}") from None
