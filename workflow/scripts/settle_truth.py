"""Settles what is true of a cohort's stored studies and slices, and which of them count."""

import json
import tempfile
from pathlib import Path

from clotline.data.cohort import read_cohort
from clotline.data.lone_shard import stored_slices
from clotline.data.rejects import count_reasons, read_lists
from clotline.data.tables import read_table, write_table
from clotline.data.truth import cohort_digests, settle
from clotline.job.files import BUNDLE, atomic, sha256
from clotline.job.run import job, log
from clotline.models.bundle import unpack_bundle


def main(snakemake):
    """Writes the truth of studies and slices, what does not count, and digests of all."""
    description = json.loads(snakemake.params.description)
    folder, output = snakemake.config["validate"], snakemake.output
    bundle_file = snakemake.config["models"] or BUNDLE
    with tempfile.TemporaryDirectory(dir=Path(output.truth).parent) as unpacked:
        bundle = unpack_bundle(bundle_file, unpacked, "seen/")
        seen, lacking = bundle.seen, bundle.lacking
    slices = stored_slices(snakemake.input.shard)
    truth = settle(
        read_cohort(folder, description),
        read_table(snakemake.input.labels),
        read_table(snakemake.input.rows),
        slices,
        folder,
        description,
        seen,
    )
    write_table(truth.studies, output.truth)
    write_table(truth.slices, output.slice_truth)
    with atomic(output.excluded) as path:
        missing = read_lists([snakemake.input.missing])
        missing.to_csv(path, index=False)
        truth.excluded.to_csv(path, index=False, header=False, mode="a")
    notes = [*truth.notes, *filter(None, [lacking])]
    for note in notes:
        log.warning("%s", note)
    for reason, count in count_reasons(truth.excluded).items():
        log.warning("%s (studies: %s, listed in %s)", reason, f"{count:,}", output.excluded)
    about = {
        "title": description["title"],
        "notes": notes,
        "digests": cohort_digests(truth, slices)
        | {"bundle": sha256(bundle_file), "code of the truth": snakemake.params.code},
    }
    with atomic(output.about) as path:
        path.write_text(json.dumps(about, indent=1), encoding="utf-8")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
