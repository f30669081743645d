"""Which device a job computes on, and why: said once, and an error where a cluster gave no GPU."""

import logging
import os
import socket
from functools import cache

from clotline.errors import ClotlineError

log = logging.getLogger("clotline")

#: With ``cpu`` in it, a job that asked for a GPU computes on the CPU without an error.
VARIABLE = "CLOTLINE_DEVICE"

#: Environment variables that queueing systems set in their jobs: all of a system's must be there.
_SYSTEMS = {
    "Slurm": ("SLURM_JOB_ID",),
    "Grid Engine": ("JOB_ID", "SGE_ROOT"),
    "PBS": ("PBS_JOBID",),
    "LSF": ("LSB_JOBID",),
}


def queue_job() -> str | None:
    """The queueing job that this process belongs to, such as ``Slurm job 101``; None without."""
    for system, names in _SYSTEMS.items():
        if all(os.environ.get(name) for name in names):
            return f"{system} job {os.environ[names[0]]}"
    return None


def is_cpu_chosen() -> bool:
    """Whether the environment has jobs compute on the CPU.

    Raises:
        ClotlineError: it says something else.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in ("", "cpu"):
        raise ClotlineError(f"{VARIABLE} is {chosen!r}; it can be cpu, or not be set")
    return chosen == "cpu"


def say_device(gpus: int, names: str | None, reason: str) -> None:
    """Says on which device a job computes.

    Args:
        gpus: GPUs that the job was given.
        names: names of the GPUs in use; None on the CPU.
        reason: why it is the CPU although GPUs were asked for.

    Raises:
        ClotlineError: on a cluster, the job was given none of the GPUs that it asked for.
    """
    if names:
        _say(f"computes on {gpus} GPU{'s' * (gpus > 1)}: {names}")
        return
    if not gpus:
        _say("computes on the CPU: it asked for no GPU")
        return
    host, cluster = socket.gethostname(), queue_job()
    if cluster and not is_cpu_chosen():
        raise ClotlineError(
            f"the job asked for {gpus} GPU{'s' * (gpus > 1)} (its resource gpu), and torch sees "
            f"none on {host} ({cluster}): {reason}. Have the queueing system give it one (see "
            "docs/cluster.md), or leave out that host; to compute on the CPU, which can take fifty "
            f"times as long, say so: set the resource gpu to 0, or export {VARIABLE}=cpu"
        )
    _say(f"computes on the CPU of {host}, though gpu={gpus} was asked for: {reason}", warn=True)


@cache
def _say(text: str, warn: bool = False) -> None:
    # A job that applies several models asks for its device each time.
    log.log(logging.WARNING if warn else logging.INFO, "%s", text)
