"""Writes the viewer: a page to look at studies."""

import json
from pathlib import Path

from clotline.data.activation_file import read_activations
from clotline.data.rejects import read_lists
from clotline.data.tables import read_table
from clotline.job.progress import progress
from clotline.job.run import job, log
from clotline.reporting.viewer import exams, notes_summary, write_viewer
from clotline.titles import counted


def main(snakemake):
    """Writes the page and the studies' scripts."""
    selection = json.loads(Path(snakemake.input.studies).read_text(encoding="utf-8"))
    activations = read_activations(snakemake.input.activations)
    shown = exams(
        selection["studies"],
        read_table(snakemake.input.slices),
        list(snakemake.input.shards),
        activations,
        selection["model"],
    )
    write_viewer(
        snakemake.output.index,
        snakemake.output.studies,
        progress(shown, len(selection["studies"]), "viewer", "studies"),
        selection["model"],
        list(activations),
        f"of {counted(selection['of'], *snakemake.params.subject)}",
        selection["slice_threshold"],
        selection["source"],
        selection["why"],
    )
    # Of new studies: what is said last is what a user reads.
    if lists := snakemake.input.notes:
        notes = read_lists([lists])
        tell = log.warning if len(notes) else log.info
        tell(notes_summary(notes, selection["of"], lists))


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
