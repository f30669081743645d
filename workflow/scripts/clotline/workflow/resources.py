"""What jobs ask the cluster for."""

from collections.abc import Callable


def growing(amount: int) -> Callable[..., int]:
    """A rule's ``mem_mb`` or ``runtime`` that grows when a job is tried again.

    Args:
        amount: of the first attempt, in MB or minutes.

    Returns:
        What Snakemake calls for a job: the amount times the number of the attempt, from 1.
    """

    def amount_of(wildcards, attempt: int) -> int:
        return amount * attempt

    return amount_of
