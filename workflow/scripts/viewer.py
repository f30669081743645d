"""Writes the viewer: a page to look at studies."""

import json
from pathlib import Path

from clotline.data.activation_file import read_activations
from clotline.data.rejects import read_lists, read_series
from clotline.data.tables import read_table
from clotline.data.unpredicted import describe_account
from clotline.job.progress import progress
from clotline.job.run import job, log
from clotline.reporting.viewer import (
    NO_SERIES,
    NO_SHIFT,
    notes_summary,
    shown_studies,
    write_viewer,
)
from clotline.titles import counted


def main(snakemake):
    """Writes the page and the studies' scripts."""
    selection = json.loads(Path(snakemake.input.studies).read_text(encoding="utf-8"))
    activations = read_activations(snakemake.input.activations)
    notes = read_lists(snakemake.input.notes)
    series, shift = snakemake.input.series, snakemake.input.shift
    shown = shown_studies(
        selection["studies"],
        read_table(snakemake.input.slices),
        list(snakemake.input.shards),
        activations,
        selection["model"],
        notes,
        read_series(series) if series else NO_SERIES,
        read_lists([shift]) if shift else NO_SHIFT,
    )
    unpredicted, account = snakemake.input.unpredicted, ""
    if unpredicted:
        account = describe_account(selection["predicted"], read_lists([unpredicted]), unpredicted)
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
        account,
    )
    # Of new studies: what is said last is what a user reads.
    if unpredicted:
        if selection["source"]["phantom"]:
            log.warning("%s", selection["source"]["title"])
        tell = log.warning if len(notes) else log.info
        tell(notes_summary(notes, selection["predicted"], snakemake.input.notes[0]))
        log.info(account)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
