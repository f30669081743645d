"""What the machine did to a job, said so that a user can put it right."""

import errno
import re
from concurrent.futures.process import BrokenProcessPool

from clotline.errors import ClotlineError
from clotline.job.disk import full_disk, is_full

_KILLED = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")


def explain(error: Exception, snakemake) -> str:
    """The last words of a job that ``error`` ended.

    Args:
        error: what the script raised.
        snakemake: the object that Snakemake gives to scripts.
    """
    text = str(error)
    if isinstance(error, ClotlineError):
        # From a loading process torch hands it on with the traceback before the message.
        return text.rpartition(f"{ClotlineError.__name__}: ")[2].strip()
    if is_full(error):
        return str(full_disk(snakemake.output[0], need=0, written=0))
    if _is_lack_of_memory(error):
        return f"out of memory ({_first_line(text) or 'MemoryError'}): {_more_memory(snakemake)}"
    return f"{type(error).__name__}: {error}"


def _is_lack_of_memory(error: Exception) -> bool:
    refused = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    return refused or isinstance(error, BrokenProcessPool) or bool(_KILLED.search(str(error)))


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "").strip(" .")


def _more_memory(snakemake) -> str:
    rule, megabytes = snakemake.rule, snakemake.resources.get("mem_mb")
    if not megabytes:
        return f"give rule {rule} more memory (mem_mb)"
    return (
        f"rule {rule} was given mem_mb={megabytes}; give it more, as with "
        f"--set-resources {rule}:mem_mb={2 * megabytes}"
    )
