"""Decodes the slices of one shard."""

from clotline.disk import SLICE_BYTES
from clotline.files import atomic
from clotline.job import job, log
from clotline.labels_file import read_labels
from clotline.plan import make_plan, planned_rows
from clotline.progress import progress
from clotline.shards import write_shard


def main(snakemake):
    """Writes the shard and the list of slices that could not be taken."""
    data = snakemake.config["data"]
    labels = read_labels(snakemake.input.labels, data["split"]["column"])
    plan = make_plan(labels, data)
    rows = planned_rows(labels, plan[plan["shard"] == int(snakemake.wildcards.shard)])

    def step(decoded):
        return progress(
            decoded, len(rows), "decoding", "slices", step=lambda d: len(d.rows) + len(d.rejects)
        )

    with atomic(snakemake.output.shard, need=len(rows) * SLICE_BYTES) as path:
        rejects, notes = write_shard(rows, data["dicom"], path, snakemake.threads, step)
    with atomic(snakemake.output.rejects) as path:
        rejects.to_csv(path, index=False)
    for note in notes:
        log.warning("%s", note)
    log.info("%s slices stored, %s rejected", f"{len(rows) - len(rejects):,}", f"{len(rejects):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
