"""Files of features: what a trained CNN gives for every stored slice.

A features file holds ``features`` (n, width) float16, rows aligned with slices.parquet, and in its
attributes the format, the backbone's name and the SHA-256 of the checkpoint that made them.
"""

from pathlib import Path

import h5py

from clotline.errors import ClotlineError

FORMAT, VERSION = "clotline-features", 1

#: Rows in one chunk of a features file; a study is read whole, so chunks are about as large.
CHUNK_ROWS = 64


def create_features(
    path: str | Path, rows: int, width: int, backbone: str, checkpoint: str
) -> h5py.File:
    """A new features file; ``checkpoint`` is the SHA-256 of the checkpoint's file."""
    file = h5py.File(path, "w", libver="v110")
    file.attrs.update(format=FORMAT, version=VERSION, backbone=backbone, checkpoint=checkpoint)
    chunks = (min(CHUNK_ROWS, rows), width)
    file.create_dataset("features", shape=(rows, width), dtype="f2", chunks=chunks)
    return file


def open_features(path: str | Path) -> h5py.File:
    """Opens a features file for reading.

    Raises:
        ClotlineError: the file is missing, damaged or of another format or version.
    """
    advice = "delete it and run the same target again"
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ClotlineError(f"{path} cannot be read ({error}): {advice}") from None
    if (file.attrs.get("format"), file.attrs.get("version")) != (FORMAT, VERSION):
        file.close()
        raise ClotlineError(f"{path} is no {FORMAT} of version {VERSION}: {advice}")
    return file


def merge_features(parts: list[str | Path], path: str | Path, step=iter) -> int:
    """Joins the shards' features into one file, block by block.

    Args:
        parts: features files of all shards, in order, made by the same checkpoint.
        path: features file to write.
        step: wraps the list of parts, for progress.

    Returns:
        Number of rows.

    Raises:
        ClotlineError: the parts come from different checkpoints.
    """
    shapes, origins = [], set()
    for part in parts:
        with open_features(part) as file:
            shapes.append(file["features"].shape)
            origins.add((file.attrs["backbone"], file.attrs["checkpoint"]))
    if len(origins) != 1:
        raise ClotlineError(
            "the shards' features come from different checkpoints: delete "
            f"{Path(parts[0]).parent} and run the same target again"
        )
    rows = sum(shape[0] for shape in shapes)
    with create_features(path, rows, shapes[0][1], *origins.pop()) as target:
        row = 0
        for part in step(parts):
            with open_features(part) as file:
                source = file["features"]
                for block in source.iter_chunks():
                    values = source[block]
                    target["features"][row : row + len(values)] = values
                    row += len(values)
    return rows
