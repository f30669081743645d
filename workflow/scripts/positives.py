"""Copies the positive slices of the train and valid studies into one file."""

from clotline.data.positives import copy_positives
from clotline.data.shards import shard_grid
from clotline.data.slice_table import positive_slices
from clotline.data.tables import read_table
from clotline.job.disk import slice_bytes
from clotline.job.files import atomic
from clotline.job.progress import progress
from clotline.job.run import job, log


def main(snakemake):
    """Writes positives.h5 by copying compressed chunks."""
    slices = read_table(snakemake.input.slices)
    files = snakemake.input.shards
    shards = {f"{number:03}": path for number, path in enumerate(files)}

    def step(parts):
        return progress(parts, len(files), "copying", "shards")

    need = len(positive_slices(slices)) * slice_bytes(shard_grid(files[0]).size)
    with atomic(snakemake.output[0], need) as path:
        count = copy_positives(shards, slices, path, step)
    log.info("%s positive slices", f"{count:,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
