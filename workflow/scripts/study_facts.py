"""Tells how each study was made, from its stored slices."""

from pathlib import Path

from clotline.data.study_facts import study_facts
from clotline.data.tables import read_table, write_table
from clotline.job.progress import progress
from clotline.job.run import job
from clotline.labels import STUDY_UID


def main(snakemake):
    """Writes one row a study."""
    slices = read_table(snakemake.input.slices)
    shards = {Path(path).stem.removeprefix("shard-"): path for path in snakemake.input.shards}
    studies = slices[STUDY_UID].nunique()

    def step(facts):
        return progress(facts, studies, "facts", "studies")

    write_table(study_facts(slices, shards, snakemake.threads, step), snakemake.output[0])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
