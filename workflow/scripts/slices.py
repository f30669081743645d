"""Lists all stored slices and accounts for every row of the labels file."""

import json

from clotline.data.accounting import check_rejects, collect_slices
from clotline.data.tables import read_table, write_table
from clotline.job.run import job, log


def main(snakemake):
    """Writes slices.parquet after checking that stored + rejected = rows."""
    planned = read_table(snakemake.input.rows)
    # Snakemake gives files in the order of the shards' names.
    names = [f"{number:03}" for number in range(len(snakemake.input.shards))]
    shards = dict(zip(names, snakemake.input.shards, strict=True))
    rejects = dict(zip(names, snakemake.input.rejects, strict=True))
    slices, rejected = collect_slices(shards, rejects, planned)
    log.info(
        "%s stored + %s rejected = %s rows of the labels file",
        *(f"{len(slices):,}", f"{len(rejected):,}", f"{len(planned):,}"),
    )
    check_rejects(rejected, len(planned), json.loads(snakemake.params.max_rejects))
    write_table(slices, snakemake.output[0])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
