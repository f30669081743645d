"""Counts patients who have several studies, and who are in several splits."""

import json

import pandas as pd

from clotline.data.folder import is_zip
from clotline.data.labels_file import group_column, read_planned_labels
from clotline.data.patient_counts import count_patients, describe_patients
from clotline.data.patients import patients_by_column, patients_by_files
from clotline.data.tables import read_table
from clotline.job.files import atomic
from clotline.job.run import job, log


def main(snakemake):
    """Writes the numbers, and warns where a patient is trained and tested on."""
    data = snakemake.config["data"]
    group = group_column(data["labels"], data["split"]["group"])
    labels = read_planned_labels(data)
    if group:
        patients, source = patients_by_column(labels, group), f"the labels file's column {group}"
    elif is_zip(data["dicom"]):
        patients, source = pd.Series(dtype="str"), "the ZIP file, where it is not looked for,"
    else:
        patients, source = patients_by_files(labels, data), "the PatientID of the DICOM files"
    counts = count_patients(patients, read_table(snakemake.input.plan), source)
    tell = log.warning if counts["split"] else log.info
    tell("%s", describe_patients(counts))
    with atomic(snakemake.output[0]) as path:
        path.write_text(json.dumps(counts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
