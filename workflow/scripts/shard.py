"""Decodes the slices of one shard."""

from clotline.files import atomic
from clotline.job import job, log
from clotline.labels_file import read_labels
from clotline.plan import make_plan, planned_rows
from clotline.progress import progress
from clotline.shards import write_shard


def main(snakemake):
    """Writes the shard, the list of slices that could not be taken, and the notes on studies."""
    data = snakemake.config["data"]
    labels = read_labels(snakemake.input.labels, data["split"]["column"])
    plan = make_plan(labels, data)
    rows = planned_rows(labels, plan[plan["shard"] == int(snakemake.wildcards.shard)])

    def step(decoded):
        return progress(
            decoded, len(rows), "decoding", "slices", step=lambda d: len(d.rows) + len(d.rejects)
        )

    with (
        atomic(snakemake.output.shard) as shard_path,
        atomic(snakemake.output.rejects) as rejects_path,
        atomic(snakemake.output.notes) as notes_path,
    ):
        rejects, notes = write_shard(rows, data["dicom"], shard_path, snakemake.threads, step)
        rejects.to_csv(rejects_path, index=False)
        notes.to_csv(notes_path, index=False)
    for note, count in notes["note"].value_counts().items():
        log.warning("%s (studies: %s, listed in %s)", note, f"{count:,}", snakemake.output.notes)
    log.info("%s slices stored, %s rejected", f"{len(rows) - len(rejects):,}", f"{len(rejects):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
