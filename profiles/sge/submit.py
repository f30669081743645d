#!/usr/bin/env python3
"""Submits one of Snakemake's job scripts to Grid Engine and prints the job's number.

Snakemake calls it with the script as the only argument. A job of an earlier run that still makes
the same outputs from the same inputs is taken over instead of being run a second time.
"""

import os
import shlex
import sys
import time
from pathlib import Path

from gridengine.jobs import EXITS, STATE, Job
from gridengine.polling import UnreachableError, call, queue
from gridengine.sites import Site, SiteError

#: The name of this run, from sidecar.py.
RUN = os.environ.get("SNAKEMAKE_CLUSTER_SIDECAR_VARS")
MASTER_AWAY = ("unable to contact qmaster", "unable to send message to qmaster", "commlib error")
#: A master that restarts is away for a minute or so; a longer absence is worth a person's look.
MASTER_PATIENCE = 600
WRAPPER = """#!/bin/bash
{setup}
{scratch}
(
{script}
)
status=$?
# Left for the status command: it reads this instead of the accounting file.
mkdir -p {exits}
echo $status >{exits}/.$JOB_ID && mv {exits}/.$JOB_ID {exits}/$JOB_ID
exit $status
"""


def main(script: str) -> int:
    """Prints the number of the job that now does the script's work."""
    job = Job.from_script(script)
    earlier = Job.last_maker(job)
    if earlier is not None:
        if job.attempt > 1 and earlier.ending == "deleted":
            say(f"{earlier} was deleted by hand, so it is not tried again; start Snakemake anew")
            return 1
        if taken_over(job, earlier):
            earlier.run = RUN
            earlier.save()
            print(earlier.id)
            return 0
    try:
        site = Site()
        arguments = site.arguments(job)
    except SiteError as error:
        say(str(error))
        return 1
    folder = Path("logs", "cluster", job.rule)
    folder.mkdir(parents=True, exist_ok=True)
    wrapped = STATE / "scripts" / f"{job.name}.sh"
    wrapped.parent.mkdir(parents=True, exist_ok=True)
    text = WRAPPER.format(
        setup=site.setup,
        # Not for this shell to fill in: Snakemake finds a job's $TMPDIR where a cluster hides it.
        scratch=f"export CLOTLINE_SCRATCH={shlex.quote(site.scratch)}" if site.scratch else "",
        script=Path(script).read_text(),
        exits=EXITS,
    )
    wrapped.write_text(text)
    log = folder.absolute() / f"{job.name}.$JOB_ID.log"
    command = ["qsub", "-terse", "-S", "/bin/bash", "-cwd", "-j", "y", "-o", str(log)]
    command += ["-N", f"c.{job.name}"[:60]]
    answer = submit([*command, *flat(arguments), str(wrapped)])
    number = answer.stdout.strip().split(".")[0]
    if answer.returncode or not number.isdigit():
        words = answer.stderr.strip() or answer.stdout.strip()
        say(f"{job} was refused. The site says:\n{quoted(words)}")
        name_the_line(site, arguments, words, str(wrapped))
        return 1
    job.id, job.run = number, RUN
    job.submitted = time.time()
    job.cluster_log = str(folder / f"{job.name}.{number}.log")
    (EXITS / number).unlink(missing_ok=True)
    job.save_as_maker()
    print(number)
    return 0


def submit(command: list[str]):
    """Calls qsub, again and again while the master is away."""
    give_up = time.time() + MASTER_PATIENCE
    pause = 2
    while True:
        try:
            answer = call(*command)
        except UnreachableError as error:
            say(str(error))
            sys.exit(1)
        away = answer.returncode and any(words in answer.stderr for words in MASTER_AWAY)
        if not away or time.time() > give_up:
            return answer
        say(f"the master does not answer; trying again in {pause} s")
        time.sleep(pause)
        pause = min(2 * pause, 30)


def taken_over(job: Job, earlier: Job) -> bool:
    """Whether an earlier run's job does this job's work; one that does other work is removed."""
    if earlier.ending is not None:
        return False
    same = earlier.identity == job.identity
    if earlier.exit_status is not None:
        done = same and earlier.exit_status == 0 and job.outputs_exist()
        if done:
            say(f"{earlier} of an earlier run has finished: its outputs stand")
        return done
    states = queue(0, earlier.submitted)
    if states is None or earlier.id not in states:
        return False
    if same and "E" not in states[earlier.id] and "d" not in states[earlier.id]:
        say(f"{earlier} of an earlier run is still there: taken over")
        return True
    say(f"{earlier} of an earlier run is in the way ({states[earlier.id]}): deleting it")
    call("qdel", earlier.id)
    while earlier.id in (queue(0) or {}):
        time.sleep(1)
    return False


def name_the_line(site: Site, arguments: dict[str, list[str]], words: str, script: str) -> None:
    """Says which line of the site file a refusal is about."""
    culprit = site.culprit(words, arguments)
    if culprit is None and "no suitable queues" in words:
        # Grid Engine checks a job without submitting it: which line must go for it to pass?
        reasons = call("qsub", *flat(arguments), "-w", "v", script).stderr
        say(f"its reasons, queue by queue:\n{quoted(reasons)}")
        for option in arguments:
            others = {name: given for name, given in arguments.items() if name != option}
            if call("qsub", *flat(others), "-w", "v", script).returncode == 0:
                culprit = option
                break
    if culprit:
        say(f"change {site.where(culprit)}\n    which gave {' '.join(arguments[culprit])}")
    else:
        say(f"the options came from {site.path}: {' '.join(flat(arguments))}")


def flat(arguments: dict[str, list[str]]) -> list[str]:
    """All arguments in one list."""
    return [text for given in arguments.values() for text in given]


def quoted(words: str) -> str:
    """Grid Engine's words, indented, without those that say nothing."""
    noise = ("Exiting.", "does not request 'forced' resource", '"-w" option has already been set')
    lines = [line for line in words.splitlines() if not any(word in line for word in noise)]
    return "\n".join(f"    {line}" for line in lines)


def say(text: str) -> None:
    """To the screen; Snakemake reads standard output."""
    print(f"Grid Engine: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
