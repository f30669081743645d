"""Finds the CTPA series among new DICOM files."""

import pandas as pd

from clotline.data.archives import unpacked
from clotline.data.rejects import REJECT_COLUMNS
from clotline.data.series import NothingChosenError, find_series, list_files, named_series
from clotline.data.tables import write_table
from clotline.data.unpredicted import nothing_predicted
from clotline.job.files import atomic, remove
from clotline.job.progress import progress
from clotline.job.run import job, log


def main(snakemake):
    """Writes the slices to decode, what was chosen of each study, and what was left out."""
    # Results of other studies must not lie beside those of this run.
    for path in snakemake.params.later:
        remove(path)
    named = named_series(snakemake.config["series"])
    # Which key of the configuration names the folder: predict or validate.
    key = snakemake.params.key
    folder = snakemake.config[key]
    try:
        with unpacked(folder, list_files(folder, key)) as packed:

            def step(headers):
                return progress(headers, len(packed.files), "headers", "files")

            rows, series, left_out = find_series(
                packed.folder, packed.files, snakemake.threads, step, named, packed.refused, key
            )
    except NothingChosenError as error:
        rejects = pd.DataFrame(columns=list(REJECT_COLUMNS))
        raise nothing_predicted(
            error, error.series, rejects, snakemake.params.unpredicted
        ) from None
    for table, target in ((series, "series"), (left_out, "left_out")):
        with atomic(snakemake.output[target]) as path:
            table.to_csv(path, index=False)
    write_table(rows, snakemake.output.rows)
    log.info(
        "%s of %s series and scans chosen, %s files left out",
        *(f"{series['chosen'].sum():,}", f"{len(series):,}", f"{len(left_out):,}"),
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
