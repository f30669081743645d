"""Decodes the slices of one shard."""

from clotline.ingest import store_slices
from clotline.job import job
from clotline.labels_file import read_labels
from clotline.plan import make_plan, planned_rows


def main(snakemake):
    """Writes the shard, the list of slices that could not be taken, and the notes on studies."""
    data = snakemake.config["data"]
    labels = read_labels(data["labels"], data["split"]["column"])
    plan = make_plan(labels, data)
    store_slices(
        planned_rows(labels, plan[plan["shard"] == int(snakemake.wildcards.shard)]),
        data["dicom"],
        snakemake.output,
        snakemake.threads,
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
