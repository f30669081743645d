#!/usr/bin/env python3
"""Submits one of Snakemake's job scripts to Grid Engine and prints the job's number.

Snakemake calls it with the script as the only argument. A job of an earlier run that still makes
the same outputs from the same inputs is taken over instead of being run a second time.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from gridengine.answers import job_details, possible_numbers, told_numbers
from gridengine.jobs import EXITS, STATE, UNDONE, Job, read_script, write
from gridengine.polling import UnreachableError, call, listed, queue
from gridengine.sites import Site, SiteError

#: The name of this run, from sidecar.py.
RUN = os.environ.get("SNAKEMAKE_CLUSTER_SIDECAR_VARS")
MASTER_AWAY = ("unable to contact qmaster", "unable to send message to qmaster", "commlib error")
#: A master that restarts is away for a minute or so; a longer absence is worth a person's look.
MASTER_PATIENCE = 600
#: Numbers that Grid Engine is asked about where what qsub printed leaves a doubt.
MOST_ASKED = 20
WRAPPER = """#!/bin/bash
{setup}
{scratch}
# Left where this job's number could not be learnt: another one does its work.
[ ! -e {undone} ] || exit 0
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
    submission = Submission(job, site, read_script(script), flat(arguments))
    answer = submission.submit()
    if answer.returncode:
        submission.undo()
        words = answer.stderr.strip() or answer.stdout.strip()
        say(f"{job} was refused. The site says:\n{quoted(words)}")
        name_the_line(site, arguments, words, str(submission.script))
        return 1
    number = submission.number()
    if number is None:
        submission.undo()
        say(
            f"{job} was submitted, but its number cannot be told from what qsub printed, nor from "
            "qstat, so the submission was undone: its job does nothing. qsub printed:\n"
            f"{quoted(answer.stdout + answer.stderr)}\n"
            "    -terse makes it print a number alone: does a wrapper drop that?"
        )
        return 1
    job.id, job.run = number, RUN
    job.submitted = time.time()
    job.cluster_log = str(submission.folder / f"{job.name}.{number}.log")
    (EXITS / number).unlink(missing_ok=True)
    job.save_as_maker()
    print(number)
    return 0


class Submission:
    """A job on its way into the queue, and its number, in whatever words that comes.

    Attributes:
        script: what qsub is given.
        folder: where the job's own output goes.
    """

    def __init__(self, job: Job, site: Site, script: str, arguments: list[str]):
        """Prepares to submit.

        Args:
            job: the job.
            site: its site.
            script: Snakemake's own script.
            arguments: the site's options of qsub.
        """
        self.folder = Path("logs", "cluster", job.rule)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.script = STATE / "scripts" / f"{job.name}.sh"
        self._site, self._text = site, script
        self._name = f"c.{job.name}"[:60]
        self._log = str(self.folder.absolute() / f"{job.name}.$JOB_ID.log")
        self._command = ["qsub", "-terse", "-S", "/bin/bash", "-cwd", "-j", "y", "-o", self._log]
        self._command += ["-N", self._name, *arguments, str(self.script)]

    def submit(self) -> subprocess.CompletedProcess:
        """Calls qsub, again and again while the master is away; gives what it said."""
        give_up = time.time() + MASTER_PATIENCE
        pause = 2
        while True:
            self._write_script()
            try:
                self._answer = call(*self._command)
            except UnreachableError as error:
                # It may be on its way nevertheless.
                write(self._undone, "")
                say(str(error))
                sys.exit(1)
            words = self._answer.stderr
            away = self._answer.returncode and any(text in words for text in MASTER_AWAY)
            if not away or time.time() > give_up:
                return self._answer
            self.undo()
            say(f"the master does not answer; trying again in {pause} s")
            time.sleep(pause)
            pause = min(2 * pause, 30)

    def _write_script(self) -> None:
        """Writes what qsub is given, with a mark of its own to undo it by."""
        self._undone = UNDONE / f"{os.getpid()}-{time.time_ns()}"
        scratch = self._site.scratch
        text = WRAPPER.format(
            setup=self._site.setup,
            # Not for this shell to fill in: Snakemake finds a job's $TMPDIR where a cluster hides
            # it.
            scratch=f"export CLOTLINE_SCRATCH={shlex.quote(scratch)}" if scratch else "",
            undone=self._undone,
            script=self._text,
            exits=EXITS,
        )
        write(self.script, text)

    def number(self) -> str | None:
        """The job's number; None where neither qsub nor qstat tells it without doubt."""
        if re.fullmatch(r"\d+(\.\S+)?", self._answer.stdout.strip()):
            return self._answer.stdout.strip().split(".")[0]
        told = self._told()
        words = self._answer.stdout + self._answer.stderr
        in_queue = {}
        with contextlib.suppress(UnreachableError):
            in_queue = listed()
        named = [number for number, (_, name) in in_queue.items() if name == self._name]
        named.sort(key=int, reverse=True)
        candidates = list(dict.fromkeys([*told, *possible_numbers(words), *named]))[:MOST_ASKED]
        unclear = []
        for number in candidates:
            is_this = self._is_number(number)
            if is_this:
                return number
            if is_this is None:
                unclear.append(number)
        # qstat -j may be closed to users: what qsub tells, else what is in this user's queue.
        if len(told) == 1 and told[0] in unclear:
            return told[0]
        likely = [number for number in unclear if number in in_queue and not Job.find(number)]
        return likely[0] if len(likely) == 1 else None

    def _told(self) -> list[str]:
        found = told_numbers(self._answer.stdout, self._name)
        return found or told_numbers(self._answer.stderr, self._name)

    def _is_number(self, number: str) -> bool | None:
        """Whether a number is this job's; None where Grid Engine does not say."""
        try:
            details = job_details(call("qstat", "-j", number).stdout)
        except UnreachableError:
            return None
        if "job_name" not in details:
            return None
        log = details.get("stdout_path_list", "")
        return details["job_name"] == self._name and log.endswith(self._log)

    def undo(self) -> None:
        """Sees to it that the job, should it be in the queue, does nothing."""
        write(self._undone, "")
        told = self._told()
        if len(told) == 1 and not Job.find(told[0]) and self._is_number(told[0]) is not False:
            with contextlib.suppress(UnreachableError):
                call("qdel", told[0])


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
