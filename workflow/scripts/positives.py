"""Copies the positive slices of the train and valid studies into one file."""

from clotline.disk import SLICE_BYTES
from clotline.files import atomic
from clotline.job import job, log
from clotline.progress import progress
from clotline.shards import copy_positives, positive_slices
from clotline.tables import read_table


def main(snakemake):
    """Writes positives.h5 by copying compressed chunks."""
    slices = read_table(snakemake.input.slices)
    files = snakemake.input.shards
    shards = {f"{number:03}": path for number, path in enumerate(files)}

    def step(parts):
        return progress(parts, len(files), "copying", "shards")

    need = len(positive_slices(slices)) * SLICE_BYTES
    with atomic(snakemake.output[0], need) as path:
        count = copy_positives(shards, slices, path, step)
    log.info("%s positive slices", f"{count:,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
