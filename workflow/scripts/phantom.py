"""Writes the embedded CTPA phantom: DICOM files and a labels file."""

import json

from clotline import phantom
from clotline.job import job
from clotline.progress import Meter


def main(snakemake):
    """Writes the cohort that the configuration describes."""
    phantom.write_cohort(
        json.loads(snakemake.params.cfg),
        snakemake.output.dicom,
        snakemake.output.labels,
        workers=snakemake.threads,
        progress=Meter("phantom", "studies"),
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
