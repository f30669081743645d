#!/usr/bin/env python3
"""Prints running, success or failed for one job, and explains its end once.

Snakemake calls it for each job and each round. Nearly every call is answered from the last qstat.
"""

import os
import sys
import time

STATE = ".clotline/gridengine"


def in_queue(job_id: str) -> bool:
    """Whether the last answer of qstat still holds and has the job waiting or running.

    With hundreds of jobs this is nearly every call, so it does without any import that takes time.
    """
    try:
        with open(f"{STATE}/queue", encoding="utf-8") as file:  # noqa: PTH123
            age = time.time() - os.fstat(file.fileno()).st_mtime
            every, *lines = file.read().splitlines()
        os.stat(f"{STATE}/exits/{job_id}")  # noqa: PTH116
    except FileNotFoundError as error:
        if error.filename.endswith("queue"):
            return False
    else:
        return False
    state = next((line for line in lines if line.startswith(f"{job_id} ")), "E")
    return age <= float(every) and "E" not in state


def main(job_id: str) -> str:
    """The job's status in Snakemake's words."""
    if in_queue(job_id):
        return "running"
    from gridengine.jobs import Job

    job = Job.find(job_id)
    if job is None:
        print(f"Grid Engine: job {job_id} is not known here", file=sys.stderr)
        return "failed"
    if job.ending is not None:
        return "success" if job.ending == "done" else "failed"
    from gridengine import polling
    from gridengine.sites import Site

    site = Site()
    if job.exit_status is None:
        states = polling.queue(site.poll_seconds, job.submitted)
        if states is None:
            # Where qstat never answers, the accounting file still tells of an end.
            if site.accounting and polling.is_failing() and polling.account(job, site.poll_seconds):
                return gone(job, site)
            return "running"
        state = states.get(job_id)
        if state is not None and "E" not in state:
            if job.gone is not None:
                job.gone = None
                job.save()
            return "running"
        if state is not None:
            return refuse_error_state(job)
    return gone(job, site)


def gone(job, site) -> str:
    """A job that has left the queue, or is about to."""
    from gridengine import endings, polling

    if job.gone is None:
        job.gone = time.time()
        job.save()
    record = polling.account(job, site.poll_seconds) if site.accounting else None
    incomplete = record is None and (site.accounting or job.exit_status is None)
    # The accounting file is written late; so are files on other hosts.
    if incomplete and time.time() - job.gone < site.patience:
        return "running"
    return report(job, endings.explain(job, record))


def refuse_error_state(job) -> str:
    """Deletes a job that Grid Engine could not start and would keep for ever."""
    from gridengine import endings, polling

    words = polling.call("qstat", "-j", job.id).stdout
    reasons = [
        line.split(":", 1)[1].strip() for line in words.splitlines() if "error reason" in line
    ]
    polling.call("qdel", job.id)
    text = "could not be started: Grid Engine says " + ("; ".join(reasons) or "nothing")
    return report(job, endings.Ending("never-began", text))


def report(job, ending) -> str:
    """Says how a job ended, on the screen and in its log."""
    from pathlib import Path

    from gridengine.endings import last_words, opened_log

    job.ending = ending.cause
    job.save()
    line = f"Grid Engine: {job}, attempt {job.attempt}: {ending}"
    print(line, file=sys.stderr)
    if ending.cause != "done":
        words = last_words(job)
        if words and not opened_log(job):
            # Snakemake shows the end of a rule's log, not of what came before it was opened.
            print("    " + words.replace("\n", "\n    "), file=sys.stderr)
    for name in {job.log, job.cluster_log} - {None}:
        try:
            if name == job.log and not Path(name).exists():
                continue
            with Path(name).open("a", encoding="utf-8") as file:
                print(line, file=file)
        except OSError:
            pass  # the screen has it
    return "success" if ending.cause == "done" else "failed"


if __name__ == "__main__":
    print(main(sys.argv[1]))
