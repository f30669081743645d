"""What Grid Engine knows: its queue from qstat, its accounting from qacct, both asked seldom.

Snakemake asks for the status of each job by itself. One answer of qstat serves all jobs for some
seconds; so does one reading of the accounting file.
"""

import json
import os
import subprocess
import sys
import time

from gridengine.answers import account_records, queue_document
from gridengine.jobs import RECORDS, STATE, Job, age, locked, write

#: On its first line, for how many seconds it holds; then a job number and its state on each line.
QUEUE = STATE / "queue"
ACCOUNTS = STATE / "accounts.json"
#: Marks a call that failed: the next one waits as long as after one that did not.
FAILED = STATE / "failed"
TIMEOUT = 120


class UnreachableError(Exception):
    """Grid Engine does not answer."""


def user() -> str:
    """Whose jobs these are; $USER is not always set."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def call(*command: str, **options) -> subprocess.CompletedProcess:
    """Runs one of Grid Engine's commands, never waiting for a terminal."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnreachableError(f"{command[0]}: {error}") from None


def queue(every: float, newer_than: float = 0) -> dict[str, str] | None:
    """States by job number, of all jobs of this user.

    Args:
        every: how old an earlier answer may be, in seconds.
        newer_than: when the job in question was submitted: an older answer cannot know it.

    Returns:
        None while there is no answer that new.
    """
    if age(QUEUE) > every and age(FAILED) > every:
        with locked():
            # Another process may have asked while this one waited for the lock.
            if age(QUEUE) > every and age(FAILED) > every:
                _ask_queue(every)
    try:
        if QUEUE.stat().st_mtime <= newer_than + 1:
            return None
        return dict(line.split() for line in QUEUE.read_text(encoding="utf-8").splitlines()[1:])
    except (OSError, ValueError):
        return None


def listed() -> dict[str, tuple[str, str]]:
    """State and name of each job of this user that is in the queue, by its number.

    Raises:
        UnreachableError: Grid Engine, or a command in its place, gives no list.
    """
    from xml.etree import ElementTree

    answer = call("qstat", "-xml", "-u", user())
    if answer.returncode:
        raise UnreachableError(answer.stderr.strip())
    document = queue_document(answer.stdout)
    if document is None:
        said = (answer.stdout + answer.stderr).strip().splitlines() or ["nothing"]
        raise UnreachableError(f"no XML in the answer to -xml, but {said[0]!r}")
    try:
        jobs = ElementTree.fromstring(document).iter("job_list")
    except ElementTree.ParseError as error:
        raise UnreachableError(f"its XML is damaged: {error}") from None
    names = ("JB_job_number", "state", "JB_name")
    rows = [[job.findtext(name) or "" for name in names] for job in jobs]
    return {number: (state, name) for number, state, name in rows}


def is_failing() -> bool:
    """Whether the last call of qstat gave no list."""
    return FAILED.exists()


def _ask_queue(every: float) -> None:
    asked = time.time()
    try:
        states = {number: state for number, (state, _) in listed().items()}
    except UnreachableError as error:
        write(FAILED, str(error))
        first = str(error).splitlines()[0] if str(error) else "no answer"
        print(f"Grid Engine: qstat: {first}: jobs count as running meanwhile", file=sys.stderr)
        return
    FAILED.unlink(missing_ok=True)
    lines = [f"{number} {state}" for number, state in states.items()]
    write(QUEUE, "\n".join([f"{every}", *lines, ""]))
    # The answer is as old as the question.
    os.utime(QUEUE, (asked, asked))


def account(job: Job, every: float) -> dict[str, str] | None:
    """A finished job's accounting record, or None while there is none."""
    found = _accounts().get(job.id)
    if found is None and age(ACCOUNTS) > every:
        with locked():
            if age(ACCOUNTS) > every:
                _ask_accounting()
        found = _accounts().get(job.id)
    return found


def _accounts() -> dict[str, dict[str, str]]:
    try:
        return json.loads(ACCOUNTS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _ask_accounting() -> None:
    """Reads the accounting file once for all jobs whose end Snakemake does not know yet."""
    waiting = [Job.find(path.stem) for path in RECORDS.glob("*.json")]
    waiting = {job.id: job for job in waiting if job and job.ending is None}
    known = {number: record for number, record in _accounts().items() if number in waiting}
    # The host's and the master's clocks may differ by some minutes.
    since = min((job.submitted for job in waiting.values()), default=time.time()) - 600
    since = time.strftime("%Y%m%d%H%M", time.localtime(since))
    try:
        answer = call("qacct", "-o", user(), "-b", since, "-j")
    except UnreachableError:
        answer = None
    if answer and not answer.returncode:
        for number, record in account_records(answer.stdout).items():
            job = waiting.get(number)
            # Numbers start again after some years, or with a new master.
            if job and _seconds_since_1970(record.get("qsub_time", "")) > job.submitted - 600:
                known[number] = record
    write(ACCOUNTS, json.dumps(known))


def _seconds_since_1970(text: str) -> float:
    for layout in ("%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S.%f"):
        try:
            return time.mktime(time.strptime(text, layout))
        except ValueError:
            continue
    # Some versions of Grid Engine write it in another way: then the number alone must do.
    return float("inf")
