"""Decodes the slices of new studies."""

import json

from clotline.data.archives import unpacked
from clotline.data.ingest import NothingStoredError, store_slices
from clotline.data.rejects import read_series
from clotline.data.tables import read_table
from clotline.data.unpredicted import nothing_predicted
from clotline.grid import Grid
from clotline.job.files import remove
from clotline.job.run import job


def main(snakemake):
    """Writes a shard of its own and the lists of what could not be taken and of notes."""
    # What another configuration gave must not lie beside a refusal of this one.
    for path in snakemake.params.later:
        remove(path)
    rows = read_table(snakemake.input.rows)
    try:
        with unpacked(snakemake.config[snakemake.params.key], only=set(rows["path"])) as packed:
            store_slices(
                rows,
                packed.folder,
                snakemake.output,
                snakemake.threads,
                snakemake.config["predict_strict"],
                Grid(*json.loads(snakemake.params.grid)),
            )
    except NothingStoredError as error:
        series = read_series(snakemake.input.series)
        raise nothing_predicted(
            error, series, error.rejects, snakemake.params.unpredicted
        ) from None


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
