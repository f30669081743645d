"""Scores a study-level and an image-level model together as the competition did."""

import json

from clotline.data.tables import read_table
from clotline.evaluation.competition import evaluate_competition
from clotline.job.files import atomic
from clotline.job.run import job


def main(snakemake):
    """Writes the weighted log loss before and after making the labels consistent."""
    settings = json.loads(snakemake.params.settings)
    score = evaluate_competition(
        read_table(snakemake.input.study),
        read_table(snakemake.input.image),
        settings["bootstraps"],
        settings["seed"],
    )
    with atomic(snakemake.output[0]) as path:
        path.write_text(json.dumps(score, indent=1, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
