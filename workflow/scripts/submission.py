"""Writes the test studies' predictions in the competition's format."""

from clotline.data.tables import read_table
from clotline.evaluation.competition import submission
from clotline.job.files import atomic
from clotline.job.run import job, log


def main(snakemake):
    """Writes submission.csv, its labels made consistent."""
    table = submission(read_table(snakemake.input.study), read_table(snakemake.input.image))
    with atomic(snakemake.output[0]) as path:
        table.to_csv(path, index=False)
    log.info("%s rows", f"{len(table):,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
