#!/usr/bin/env python3
"""Runs beside Snakemake, and deletes the jobs that Snakemake leaves in the queue when it gives up.

After Ctrl-C Snakemake gives the cancel command the jobs that it knows of, but for those whose
status it is asking at that moment: with hundreds of jobs, often all of them. It starts this command
before the first job and terminates it at the end of the run. A Snakemake that was killed does not,
and its jobs go on: the next run takes them over.
"""

import os
import signal
import sys
import time

from gridengine.jobs import RECORDS, Job
from gridengine.polling import UnreachableError, call

#: Pauses between attempts to reach the master, in seconds.
PAUSES = (1, 2, 4, 8, 16, 0)


def main() -> None:
    """Prints the run's name, which submitted jobs remember, and waits for the run's end."""
    run = f"{os.getpid()}-{time.time():.0f}"
    parent = os.getppid()
    # Ctrl-C reaches every process of a terminal; Snakemake's own end decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(delete_jobs(run)))
    print(run, flush=True)
    while os.getppid() == parent:
        time.sleep(1)


def delete_jobs(run: str) -> int:
    """Deletes what the run has in the queue; gives 0 if all of it could be deleted."""
    jobs = [Job.find(path.stem) for path in RECORDS.glob("*.json")]
    left = [
        job.id
        for job in jobs
        if job and job.run == run and job.ending is None and job.exit_status is None
    ]
    if not left:
        return 0
    print(f"Grid Engine: deleting {len(left)} jobs", file=sys.stderr, flush=True)
    for pause in PAUSES:
        try:
            answer = call("qdel", *left)
        except UnreachableError as error:
            words = str(error)
        else:
            # A job that has just ended is denied: what counts is that the master was reached.
            words = answer.stdout + answer.stderr
            if not answer.returncode or "denied" in words or "does not exist" in words:
                return 0
        time.sleep(pause)
    print(
        f"Grid Engine: jobs are left in the queue: {words.strip()}. Delete them with "
        f"qdel {' '.join(left)}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    main()
