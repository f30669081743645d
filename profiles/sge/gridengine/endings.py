"""How a job ended, in words, with what to change."""

import re
import signal
from pathlib import Path

from gridengine.jobs import Job

#: What a log says of a lack of the host's memory; of a GPU's, mem_mb is no remedy.
OUT_OF_MEMORY = re.compile(
    r"(?<!OutOf)MemoryError|Cannot allocate memory|std::bad_alloc|oom-kill|DefaultCPUAllocator"
    r"|can't start new thread"
)
#: Values of qacct's `failed` (see sge_status(5)) that mean that the job never began.
NEVER_BEGAN = {*range(1, 12), 26, 27, 28, 29, 30, 31, 32, 33, 35}
ENFORCED = 37
ADVICE_BEFORE_START = {
    26: "the host cannot write to logs/cluster: does it see the working directory?",
    27: "the host has no /bin/bash",
    28: "the host does not see the working directory",
}
TAIL = 15


class Ending:
    """A job's end.

    Attributes:
        cause: done, exit, time, memory, deleted, never-began or lost.
        text: one sentence on it.
        advice: what to change, or an empty string.
    """

    def __init__(self, cause: str, text: str, advice: str = ""):
        self.cause = cause
        self.text = text
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.text}. {self.advice}".strip()


def explain(job: Job, record: dict[str, str] | None) -> Ending:
    """The end of a job that left the queue.

    Args:
        job: the job.
        record: its accounting record; None where there is none.
    """
    record = record or {}
    failed, failed_words = _failed(record)
    wall = _seconds(record)
    peak = _megabytes(record.get("maxvmem", ""))
    where = f" on {record['hostname']}" if record.get("hostname") else ""
    spent = f" after {duration(wall)}{where}" if wall is not None else where
    used = f", peak address space {size(peak)}" if peak else ""
    status = job.exit_status
    more_memory = f"Raise mem_mb of rule {job.rule} (now {job.mem_mb})"

    if status == 0:
        return Ending("done", f"finished{spent}{used}")
    over_time = wall is not None and job.seconds and wall >= job.seconds - 1
    if status is None and over_time:
        return Ending(
            "time",
            f"stopped{spent}: over its wall time of {duration(job.seconds)}",
            f"Raise runtime of rule {job.rule} (now {job.seconds / 60:g} minutes)",
        )
    # A limit on address space makes allocations fail; the kernel's own limit kills.
    if (
        failed == ENFORCED
        or (peak and job.mem_mb and peak >= 0.98 * job.mem_mb and status != 0)
        or OUT_OF_MEMORY.search(last_words(job))
    ):
        return Ending(
            "memory", f"stopped{spent}: out of its memory of {size(job.mem_mb)}{used}", more_memory
        )
    if failed in NEVER_BEGAN:
        return Ending(
            "never-began",
            f"never began{where}: Grid Engine says {failed_words!r}",
            ADVICE_BEFORE_START.get(failed, "Ask the site's administrators about that host"),
        )
    if status is None and not record:
        return Ending(
            "lost",
            "vanished from the queue without a trace: its host was lost, or the master forgot it",
            "The job is safe to run again",
        )
    if status is None and (killed_by := _signal(record)) is not None:
        return Ending(
            "deleted",
            f"killed by {killed_by}{spent}: deleted with qdel, by you or an administrator{used}",
        )
    if status is None and record.get("exit_status", "0") != "0":
        return Ending(
            "exit",
            f"exit status {record['exit_status']}{spent}, before Snakemake began",
            "The site file's setup lines failed; logs/cluster has what they said",
        )
    if status is None:
        return Ending(
            "lost",
            f"ended{spent} without an exit status of its own: its host was lost or shut down"
            f" (Grid Engine says {failed_words or 'nothing'!r})",
            "The job is safe to run again",
        )
    if status == 128 + signal.SIGKILL:
        return Ending(
            "memory",
            f"killed{spent} by something on the host, most often for memory{used}",
            more_memory,
        )
    if status > 128:
        return Ending("exit", f"killed{spent} by {_signal_name(status - 128)}{used}")
    return Ending("exit", f"exit status {status}{spent}{used}")


def last_words(job: Job) -> str:
    """The end of the job's log, else of what it printed outside of it."""
    for name in (job.log if opened_log(job) else None, job.cluster_log):
        try:
            lines = Path(name).read_text(errors="replace", encoding="utf-8").splitlines()
        except (OSError, TypeError):
            continue
        if lines:
            return "\n".join(lines[-TAIL:])
    return ""


def opened_log(job: Job) -> bool:
    """Whether the job came so far as to open its log; an earlier job's may lie in its place."""
    try:
        return Path(job.log).stat().st_mtime >= job.submitted
    except (OSError, TypeError):
        return False


def duration(seconds: float) -> str:
    """Such as `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(megabytes: float) -> str:
    """Such as `16.0 GB`."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def _failed(record: dict[str, str]) -> tuple[int, str]:
    found = re.match(r"(\d+)\s*:?\s*(.*)", record.get("failed", ""))
    return (int(found[1]), found[2].strip()) if found else (0, "")


def _seconds(record: dict[str, str]) -> float | None:
    found = re.match(r"[\d.]+", record.get("ru_wallclock", ""))
    return float(found[0]) if found else None


def _megabytes(text: str) -> float:
    found = re.match(r"([\d.]+)\s*([KMGT]?)", text)
    if not found:
        return 0.0
    return float(found[1]) * {"": 1e-6, "K": 1e-3, "M": 1.0, "G": 1e3, "T": 1e6}[found[2]]


def _signal(record: dict[str, str]) -> str | None:
    found = re.match(r"\d+", record.get("exit_status", ""))
    return _signal_name(int(found[0]) - 128) if found and int(found[0]) > 128 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
