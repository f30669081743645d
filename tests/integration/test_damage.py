"""A damaged artifact is found when a job reads it, and the message tells how to make it anew."""

import re
import shutil

import h5py
import hdf5plugin  # noqa: F401
import pyarrow.parquet
import pytest
from workflow_run import ON_TWO_CORES


def flip_pixels(path):
    """Turns over a bit in the middle of the last stored slice."""
    with h5py.File(path) as file:
        chunk = file["pixels"].id.get_chunk_info(len(file["pixels"]) - 1)
    return flip_at(path, chunk.byte_offset + chunk.size // 2)


def flip_features(path):
    with h5py.File(path) as file:
        return flip_at(path, file["features"].id.get_offset() + 1001)


def flip_table(path):
    """Turns over a bit of the first column's values."""
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    first = column.dictionary_page_offset or column.data_page_offset
    return flip_at(path, first + column.total_compressed_size - 2)


def flip_middle(path):
    return flip_at(path, path.stat().st_size // 2)


def flip_at(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    return bytes(content)


def truncate(path):
    return path.read_bytes()[: path.stat().st_size * 3 // 4]


@pytest.mark.parametrize(
    ("damage", "damaged", "target"),
    [
        (flip_pixels, "results/data/positives.h5", "results/cnn/resnext50.pt"),
        (truncate, "results/data/shards/shard-000.h5", "results/data/slices.parquet"),
        (flip_features, "results/features/resnext50.h5", "results/lstm/resnext50-study.pt"),
        (
            flip_middle,
            "results/lstm/combined-image.pt",
            "results/predictions/combined-image.parquet",
        ),
        (
            flip_table,
            "results/predictions/combined-study.parquet",
            "results/metrics/combined-study.json",
        ),
    ],
    ids=["positives", "shard", "features", "checkpoint", "parquet"],
)
def test_a_damaged_artifact_is_named_and_the_command_in_the_message_makes_it_anew(
    tiny, tiny_copy, damage, damaged, target
):
    path = tiny_copy.folder / damaged
    content = damage(path)
    path.unlink()
    path.write_bytes(content)
    shutil.copystat(tiny.folder / damaged, path)
    (tiny_copy.folder / target).unlink()
    done = tiny_copy.build(*ON_TWO_CORES, target, check=False)
    assert done.returncode != 0
    assert f"{damaged} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    (named,) = set(re.findall(r"To remake it, rm (\S+) and run the same snakemake", done.stderr))
    assert named == damaged
    (tiny_copy.folder / named).unlink()
    tiny_copy.build(*ON_TWO_CORES, target)
    for made in (damaged, target):
        assert (tiny_copy.folder / made).read_bytes() == (tiny.folder / made).read_bytes()
