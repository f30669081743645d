"""Decodes the slices of one shard."""

from clotline.data.folder import DataFolder
from clotline.data.ingest import store_slices
from clotline.data.labels_file import read_planned_labels
from clotline.data.plan import make_plan, planned_rows
from clotline.grid import grid_of
from clotline.job.run import job


def main(snakemake):
    """Writes the shard, the list of slices that could not be taken, and the notes on studies."""
    data = snakemake.config["data"]
    labels = read_planned_labels(data)
    plan = make_plan(labels, data)
    store_slices(
        planned_rows(labels, plan[plan["shard"] == int(snakemake.wildcards.shard)]),
        DataFolder(data["dicom"], data["links_root"]),
        snakemake.output,
        snakemake.threads,
        grid=grid_of(data),
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
