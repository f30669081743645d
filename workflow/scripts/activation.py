"""Makes one CNN's class activation maps of the test slices."""

from pathlib import Path

from clotline.data.activation_file import write_activation
from clotline.data.tables import read_table
from clotline.job.files import atomic
from clotline.job.run import job
from clotline.models.activation import map_slices


def main(snakemake):
    """Writes the maps in the order of slices.parquet."""
    slices = read_table(snakemake.input.slices)
    slices = slices[slices["split"] == "test"]
    paths = {Path(path).stem.removeprefix("shard-"): path for path in snakemake.input.shards}
    activation = map_slices(
        snakemake.input.checkpoint,
        slices.assign(file=slices["shard"].map(paths)),
        snakemake.resources.get("gpu", 0),
        snakemake.threads,
    )
    with atomic(snakemake.output[0]) as path:
        write_activation(path, activation, snakemake.wildcards.backbone)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
