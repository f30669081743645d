"""Jobs: read from Snakemake's job scripts, remembered in small files."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

STATE = Path(".clotline", "gridengine")
RECORDS = STATE / "jobs"
#: Where a job leaves its exit status.
EXITS = STATE / "exits"
#: By outputs, the job that last was to make them.
MAKERS = STATE / "makers"
#: Marks of submissions whose job must do nothing, should it begin nevertheless.
UNDONE = STATE / "undone"


class Job:
    """One job. Everything in it is a plain value, kept as JSON.

    Attributes:
        id: Grid Engine's number, once it is known.
        rule, wildcards, threads, mem_mb, seconds, gpu, attempt: what Snakemake says of it.
        outputs: its output files; None where there are too many for Snakemake to list.
        log: its rule's log file, or None.
        cluster_log: what it printed outside of its log file.
        identity: a digest of its rule, parameters and inputs: equal for equal work.
        submitted: when, in seconds since 1970.
        gone: when it was first missing from the queue, or None.
        ending: how it ended, as Snakemake was told, or None.
        run: the run of Snakemake that waits for it, by the name that its sidecar gave.
    """

    def __init__(self, **values):
        self.id = self.cluster_log = self.submitted = self.gone = self.ending = self.run = None
        self.__dict__.update(values)

    @classmethod
    def from_script(cls, path: str) -> "Job":
        """The job of a script that Snakemake wrote."""
        text = read_script(path)
        properties = json.loads(re.search(r"^# properties = (.*)$", text, re.M)[1])
        resources = properties["resources"]
        rule = properties.get("rule") or properties["groupid"]
        wildcards = properties.get("wildcards") or {}
        attempt = re.search(r"--attempt (\d+)", text)
        work = [rule, wildcards, properties.get("params"), _stamps(properties["input"])]
        return cls(
            rule=rule,
            wildcards=[str(value) for value in wildcards.values()],
            threads=int(properties["threads"]),
            mem_mb=int(resources.get("mem_mb") or 0),
            seconds=round(60 * float(resources.get("runtime") or 0)),
            gpu=int(resources.get("gpu") or 0),
            attempt=int(attempt[1]) if attempt else 1,
            outputs=properties["output"],
            log=(properties.get("log") or [None])[0],
            identity=_digest(work),
        )

    @classmethod
    def find(cls, job_id: str) -> "Job | None":
        """A submitted job, by its number."""
        try:
            return cls(**json.loads((RECORDS / f"{job_id}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    @classmethod
    def last_maker(cls, other: "Job") -> "Job | None":
        """The job that last was to make another's outputs."""
        try:
            return cls.find((MAKERS / other._outputs_key()).read_text(encoding="utf-8"))
        except OSError:
            return None

    def __str__(self) -> str:
        name = " ".join([self.rule, *self.wildcards])
        return f"job {self.id} ({name})" if self.id else name

    @property
    def name(self) -> str:
        """A name for queue listings and files."""
        return re.sub(r"[^\w.-]+", "_", ".".join([self.rule, *self.wildcards]))[:120]

    @property
    def exit_status(self) -> int | None:
        """What the job's shell left behind; None if it was killed with its shell, or still runs."""
        try:
            return int((EXITS / self.id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def save(self) -> None:
        """Remembers the job."""
        write(RECORDS / f"{self.id}.json", json.dumps(self.__dict__))

    def save_as_maker(self) -> None:
        """Remembers the job as the one that makes its outputs."""
        self.save()
        write(MAKERS / self._outputs_key(), self.id)

    def outputs_exist(self) -> bool:
        """Whether all that the job is to make lies there."""
        return bool(self.outputs) and all(Path(output).exists() for output in self.outputs)

    def _outputs_key(self) -> str:
        return _digest(self.outputs or [self.rule, self.wildcards])[:32]


def read_script(path: str | Path) -> str:
    """A text of the user's or of Snakemake's, in whatever encoding; `write` gives its bytes."""
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape")


def write(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    temporary.replace(path)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Holds the state folder's lock: one process at a time asks Grid Engine."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w", encoding="utf-8") as file:
        # Some file systems have no locks: then Grid Engine is asked a few times more often.
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def age(path: Path) -> float:
    """Seconds since a file was written; infinity if it is not there."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _stamps(inputs: list[str] | None) -> list | None:
    if inputs is None:
        return None
    stamps = []
    for path in sorted(inputs):
        try:
            status = Path(path).stat()
            stamps.append([path, status.st_mtime_ns, status.st_size])
        except OSError:
            stamps.append([path])
    return stamps
