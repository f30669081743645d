"""Plans shards and splits from the labels file."""

from pathlib import Path

from clotline.data.consistency import inconsistent_studies
from clotline.data.labels_file import read_planned_labels
from clotline.data.patients import first_studies
from clotline.data.plan import check_plan, make_plan, planned_rows
from clotline.data.tables import write_table
from clotline.job.disk import slice_bytes, warn_if_short
from clotline.job.run import job, log


def main(snakemake):
    """Writes the studies with their shard and split, and the labels in the shards' order."""
    data = snakemake.config["data"]
    labels = read_planned_labels(data)
    plan = make_plan(labels, data, first_studies(labels, data))
    check_plan(plan)
    for name, part in plan.groupby("split", sort=False):
        log.info(
            "%s: %s studies, %s slices, %s positive",
            *(name, f"{len(part):,}", f"{part['slices'].sum():,}"),
            f"{part['positive_slices'].sum():,}",
        )
    if broken := inconsistent_studies(labels):
        log.warning(
            "the labels of %s studies break the rules of label consistency; the first: %s",
            f"{len(broken):,}",
            ", ".join(broken[:5]),
        )
    shards = Path(snakemake.output.plan).parent / "shards"
    warn_if_short(shards, len(labels) * slice_bytes(data["size"]))
    write_table(plan, snakemake.output.plan)
    write_table(planned_rows(labels, plan), snakemake.output.rows)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
