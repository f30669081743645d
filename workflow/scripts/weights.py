"""Fetches a backbone's ImageNet weights."""

from clotline.job.run import job
from clotline.models.imagenet import fetch_imagenet_weights


def main(snakemake):
    """Downloads the file that the network's own library names."""
    library, architecture, *checksum = snakemake.params.cfg.split()
    fetch_imagenet_weights(library, architecture, snakemake.output[0], *checksum)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
