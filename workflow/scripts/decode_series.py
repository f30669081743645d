"""Decodes the slices of new studies."""

from clotline.data.archives import unpacked
from clotline.data.ingest import store_slices
from clotline.data.tables import read_table
from clotline.job.run import job


def main(snakemake):
    """Writes a shard of its own and the lists of what could not be taken and of notes."""
    rows = read_table(snakemake.input[0])
    with unpacked(snakemake.config["predict"], only=set(rows["path"])) as packed:
        store_slices(
            rows,
            packed.folder,
            snakemake.output,
            snakemake.threads,
            snakemake.config["predict_strict"],
        )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
