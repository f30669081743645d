"""What jobs ask the cluster for."""

from collections.abc import Callable


def growing(amount: int) -> Callable[..., int]:
    """A rule's ``mem_mb`` or ``runtime``, which grows with each attempt.

    Args:
        amount: of the first attempt, in MB or minutes.

    Returns:
        A function that Snakemake calls for a job: amount times the number of the attempt, from 1.
    """

    def amount_of(wildcards, attempt: int) -> int:
        return amount * attempt

    return amount_of
