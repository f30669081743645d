"""What a run's user sees beside Snakemake's own lines."""

import logging
import sys

from snakemake.logging import logger
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from clotline.workflow.estimate import Data, PlannedJob, estimate
from clotline.workflow.live_bars import Bars


class Estimates(logging.Handler):
    """Says after a dry run's jobs what they are about to cost."""

    def __init__(self, workflow, data: Data):
        super().__init__(logging.INFO)
        self._workflow = workflow
        self._data = data
        self._jobs: list[PlannedJob] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collects the jobs, and ends with the second of Snakemake's two tables of them."""
        if not self._workflow.dryrun:
            return
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO and record.output:
            # A dry run cuts a job's own threads down to one core.
            threads = self._workflow.get_rule(record.rule_name).resources["_cores"].value
            asked = (record.resources.get(name, 0) for name in ("gpu", "mem_mb", "runtime"))
            wildcards = dict(record.wildcards)
            self._jobs.append(PlannedJob(record.rule_name, wildcards, threads, *asked))
        elif event == LogEvent.RUN_INFO and self._jobs:
            logger.info("\n" + estimate(self._jobs, self._data) + "\n")


def watch(workflow, data: Data) -> None:
    """Follows a run from its parsing on; jobs parse the Snakefile too and are left alone."""
    if not workflow.is_main_process:
        return
    logger.addHandler(Estimates(workflow, data))
    quiet = workflow.output_settings.quiet or ()
    if sys.stderr.isatty() and not {Quietness.ALL, Quietness.PROGRESS} & set(quiet):
        logger.addHandler(Bars(workflow))
