"""Writes the embedded CTPA phantom: DICOM files and a labels file."""

import json

from clotline.data import phantom
from clotline.job.disk import warn_if_short
from clotline.job.files import PHANTOM_SOURCE, atomic
from clotline.job.progress import Meter
from clotline.job.run import job

#: Bytes of one slice as a DICOM file, on average over the encodings.
SLICE_FILE_BYTES = 150_000


def main(snakemake):
    """Writes the cohort that the configuration describes."""
    settings = json.loads(snakemake.params.cfg)
    slices = settings["studies"] * settings["slices_max"]
    warn_if_short(snakemake.output.dicom, slices * SLICE_FILE_BYTES)
    phantom.write_cohort(
        settings,
        snakemake.output.dicom,
        snakemake.output.labels,
        workers=snakemake.threads,
        progress=Meter("phantom", "studies"),
    )
    with atomic(PHANTOM_SOURCE) as path:
        path.write_text(f"{snakemake.params.cfg}\n{snakemake.params.code}", encoding="utf-8")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
