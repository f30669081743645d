"""Makes one model of the networks of all folds."""

from clotline.data.tables import read_table, write_table
from clotline.evaluation.ensembles import join_folds
from clotline.job.run import job, log
from clotline.labels import STUDY_UID


def main(snakemake):
    """Writes predictions of every study by networks that never saw it."""
    plan = read_table(snakemake.input.plan).set_index(STUDY_UID)
    table = join_folds([read_table(path) for path in snakemake.input.parts], plan["split"])
    write_table(table, snakemake.output[0])
    studies = table.groupby("split")[STUDY_UID].nunique()
    log.info(
        "%s studies predicted out of fold, %s of the test split by all folds",
        *(f"{studies.get(split, 0):,}" for split in ("valid", "test")),
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
