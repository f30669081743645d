"""The folder or ZIP file that slices are read from, and what must be known to find them."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataFolder(os.PathLike):
    """A folder of DICOM files in which links may lead out, or of which some files were unpacked.

    Data sets under DataLad or git-annex consist of links to files in ``.git/annex/objects``.

    Attributes:
        path: the folder.
        links_root: folder under which the targets of links may lie; None where it is ``path``.
        unpacked: the folder in which that lies what archives held; None where nothing was packed.
    """

    path: str
    links_root: str | None = None
    unpacked: str | None = None

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


def is_zip(source: str | os.PathLike) -> bool:
    """Whether slices lie in a ZIP file: an address, or a path that ends so and is no folder."""
    text = os.fspath(source)
    return is_address(text) or (text.lower().endswith(".zip") and not Path(text).is_dir())


def is_address(source: str) -> bool:
    """Whether a file lies on a server."""
    return source.startswith(("http://", "https://"))
