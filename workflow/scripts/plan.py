"""Plans shards and splits from the labels file."""

import json

from clotline.consistency import inconsistent_studies
from clotline.files import atomic
from clotline.job import job, log
from clotline.labels_file import read_labels
from clotline.plan import check_plan, make_plan, planned_rows


def main(snakemake):
    """Writes the studies with their shard and split, and the labels in the shards' order."""
    split = json.loads(snakemake.params.split)
    data = {"split": split, "slices_per_shard": json.loads(snakemake.params.slices_per_shard)}
    labels = read_labels(snakemake.input.labels, split["column"])
    plan = make_plan(labels, data)
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
    with atomic(snakemake.output.plan) as plan_path, atomic(snakemake.output.rows) as rows_path:
        plan.to_parquet(plan_path, index=False)
        planned_rows(labels, plan).to_parquet(rows_path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
