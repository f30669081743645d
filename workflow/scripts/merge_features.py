"""Joins the features of all shards into one file a backbone."""

from pathlib import Path

from clotline.data.features_file import merge_features
from clotline.job.files import atomic
from clotline.job.progress import progress
from clotline.job.run import job, log


def main(snakemake):
    """Writes the features of all slices, rows aligned with slices.parquet."""
    parts = list(snakemake.input)
    need = sum(Path(part).stat().st_size for part in parts)
    with atomic(snakemake.output[0], need) as path:
        rows = merge_features(parts, path, lambda p: progress(p, len(p), "joining", "shards"))
    log.info("features of %s slices", f"{rows:,}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
