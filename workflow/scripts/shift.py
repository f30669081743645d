"""Sets new studies beside the data that the models were trained on."""

import pandas as pd

from clotline.data.rejects import count_notes, read_lists
from clotline.data.study_facts import facts_of_shard
from clotline.evaluation.shift import SHIFT_COLUMNS, compare_with_training, shift_notes
from clotline.job.files import BUNDLE, atomic
from clotline.job.run import job, log
from clotline.models.bundle import read_training


def main(snakemake):
    """Writes where each study lies among the training studies, and all notes."""
    notes = read_lists([snakemake.input.notes])
    # Its path is from the configuration, not a parameter: where it lies changes no result.
    training = read_training(snakemake.config["models"] or BUNDLE)
    if training is None:
        log.warning(
            "these models do not say what data they were trained on: an older Clotline made them"
        )
        shift = pd.DataFrame(columns=list(SHIFT_COLUMNS))
    else:
        facts = facts_of_shard(snakemake.input.shard, snakemake.threads)
        shift = compare_with_training(facts, training)
        outside = shift_notes(shift)
        for note, count in count_notes(outside).items():
            log.warning(
                "%s (studies: %s, listed in %s)", note, f"{count:,}", snakemake.output.notes
            )
        notes = pd.concat([notes, outside], ignore_index=True)
    with atomic(snakemake.output.shift) as path:
        shift.to_csv(path, index=False)
    with atomic(snakemake.output.notes) as path:
        notes.to_csv(path, index=False)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
