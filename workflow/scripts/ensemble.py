"""Makes one model of several."""

from pathlib import Path

from clotline.data.tables import read_table, write_table
from clotline.evaluation.ensembles import mean_of
from clotline.job.run import job


def main(snakemake):
    """Writes the mean of the members' predictions."""
    tables = {Path(path).stem: read_table(path) for path in snakemake.input}
    write_table(mean_of(tables), snakemake.output[0])


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
