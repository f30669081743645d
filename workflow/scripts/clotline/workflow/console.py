"""What a run's user sees beside Snakemake's own lines."""

import logging
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from clotline.job.failures import NOT_AGAIN
from clotline.workflow.estimate import Data, PlannedJob, estimate
from clotline.workflow.live_bars import Bars, last_message

#: How Snakemake's lines about its paragraphs of jobs begin.
_ABOUT_PARAGRAPHS = (
    "Reasons:",
    "Some jobs were triggered by provenance information",
    "Rules with provenance triggered jobs:",
)

#: Jobs that run first and are named with their reason; more of a rule are only counted.
NAMED = 3


class DryRun(logging.Filter):
    """Says of a dry run in one table what it would cost, and what would run first and why.

    Snakemake's own two tables and its paragraph for each job are left out; with ``-p``
    (``--printshellcmds``) those paragraphs stay.
    """

    def __init__(self, workflow, data: Data):
        super().__init__()
        self._workflow = workflow
        self._data = data
        self._jobs: list[PlannedJob] = []
        self._records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether Snakemake's handlers get a record; they get the summary with the last table."""
        if not self._workflow.dryrun:
            return True
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            if record.output:
                self._note(record)
            return self._workflow.output_settings.printshellcmds
        if event == LogEvent.RUN_INFO:
            if self._jobs:
                text = f"{runs_first(self._records)}\n\n{estimate(self._jobs, self._data)}\n"
                record.msg, record.args = "\n" + text, ()
            return bool(self._jobs)
        verbose = self._workflow.output_settings.printshellcmds
        return verbose or not str(record.msg).startswith(_ABOUT_PARAGRAPHS)

    def _note(self, record: logging.LogRecord) -> None:
        # A dry run cuts a job's own threads down to one core.
        threads = self._workflow.get_rule(record.rule_name).resources["_cores"].value
        asked = (record.resources.get(name, 0) for name in ("gpu", "mem_mb", "runtime"))
        wildcards = dict(record.wildcards)
        self._jobs.append(PlannedJob(record.rule_name, wildcards, threads, *asked))
        self._records.append(record)


def runs_first(records: list[logging.LogRecord]) -> str:
    """The jobs that wait for no other, by rule, with the reason why they would run.

    Args:
        records: Snakemake's, of all jobs that would run: with ``rule_name``, ``wildcards``,
            ``input``, ``output`` and ``reason``.
    """
    made = {path for record in records for path in record.output}
    ready: dict[str, list[logging.LogRecord]] = {}
    for record in records:
        if made.isdisjoint(record.input):
            ready.setdefault(record.rule_name, []).append(record)
    lines = ["Runs first:"]
    for rule, group in ready.items():
        for record in group[:NAMED]:
            name = " ".join([rule, *map(str, dict(record.wildcards).values())])
            lines.append(f"  {name}: {_first_sentence(record.reason)}")
        if len(group) > NAMED:
            lines.append(f"  and {len(group) - NAMED:,} more of {rule}")
    lines.append("(snakemake -n -p says of every job what it makes and why)")
    return "\n".join(lines)


def _first_sentence(reason: str, longest: int = 100) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


class NoSecondTry(logging.Handler):
    """Keeps Snakemake from retrying a job that failed for a reason that a user has to put right.

    It retries whatever failed, but a wrong input or key stays wrong.
    """

    def __init__(self, workflow):
        super().__init__(logging.INFO)
        self._workflow = workflow

    def emit(self, record: logging.LogRecord) -> None:
        """Reads the last message of a failed job, which Snakemake reports before it retries."""
        if getattr(record, "event", None) != LogEvent.JOB_ERROR or not record.log:
            return
        if last_message(Path(record.log[0])) != NOT_AGAIN:
            return
        dag = self._workflow.dag
        for job in dag.jobs:
            if dag.jobid(job) == record.jobid:
                # As if this had been its last attempt. The public setter would also recompute the
                # job's resources, and more would be released than it holds.
                job._attempt = max(job.attempt, job.restart_times + 1)


def watch(workflow, data: Data) -> None:
    """Follows a run from its parsing on; jobs parse the Snakefile too and are left alone."""
    if not workflow.is_main_process:
        return
    logger.addFilter(DryRun(workflow, data))
    logger.addHandler(NoSecondTry(workflow))
    quiet = workflow.output_settings.quiet or ()
    if sys.stderr.isatty() and not {Quietness.ALL, Quietness.PROGRESS} & set(quiet):
        logger.addHandler(Bars(workflow))
