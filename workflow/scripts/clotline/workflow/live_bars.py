"""Live bars under Snakemake's lines on a terminal: how far the run is, and what each job does."""

import logging
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from snakemake_interface_logger_plugins.common import LogEvent

from clotline.job.progress import clock

#: Seconds between two readings of the jobs' logs.
EVERY_S = 2
#: Jobs shown with what they do; more are only counted.
SHOWN = 6
#: Bytes at the end of a log in which its last message is sought.
TAIL = 4096
#: Characters of the bar.
WIDTH = 30
FULL_AND_NOT = "█·"
#: Rows of a terminal that are left to everything else.
LEFT = 6


class Footer:
    """Lines at a terminal's foot, under all that this and other processes write to it.

    Everything else scrolls in a region above them. The terminal is never queried, because it would
    answer on standard input.
    """

    SAVE, RESTORE, CLEAR_BELOW = "\x1b7", "\x1b8", "\x1b[J"

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._kept = self._rows = 0

    def show(self, lines: list[str]) -> None:
        """Shows these lines, or as many of the first as there is room for."""
        columns, rows = os.get_terminal_size(self._stream.fileno())
        room = max(rows - LEFT, 0)
        lines = lines[:room]
        if not lines:
            self.remove()
            return
        text = ""
        if len(lines) > self._kept or rows != self._rows:
            kept = max(len(lines), min(self._kept, room))
            text += self._release()
            self._kept, self._rows = kept, rows
            text += self._reserve()
        text += self.SAVE + self._to_line(0) + self.CLEAR_BELOW
        # Each line goes to its row explicitly: below the region terminals differ on line feeds.
        for number, line in enumerate(lines):
            text += self._to_line(number) + line[: columns - 1]
        self._write(text + self.RESTORE)

    def remove(self) -> None:
        """Takes the lines away and lets the whole terminal scroll again."""
        self._write(self._release())

    def _reserve(self) -> str:
        # What stands on the last rows moves up first.
        up = "\n" * self._kept + f"\x1b[{self._kept}A"
        return up + self.SAVE + f"\x1b[1;{self._rows - self._kept}r" + self.RESTORE

    def _release(self) -> str:
        if not self._kept:
            return ""
        text = self.SAVE + "\x1b[r" + self._to_line(0) + self.CLEAR_BELOW + self.RESTORE
        self._kept = 0
        return text

    def _to_line(self, number: int) -> str:
        return f"\x1b[{self._rows - self._kept + 1 + number};1H"

    def _write(self, text: str) -> None:
        # In one piece, so that no other process writes in between.
        self._stream.write(text)
        self._stream.flush()


def signs(encoding: str) -> str:
    """The characters of a bar's full and empty parts in a terminal's encoding."""
    try:
        FULL_AND_NOT.encode(encoding)
    except UnicodeEncodeError:
        return "#."
    return FULL_AND_NOT


class RunningJob:
    """A job that Snakemake has handed on: to this machine or to a queue."""

    def __init__(self, name: str, log: Path | None):
        self.name = name
        self._log = log
        self._since = time.time()

    def begun(self) -> bool:
        """Whether the job itself has begun: it opens its log first of all."""
        try:
            # The clocks of hosts differ by a little.
            return self._log is None or self._log.stat().st_mtime > self._since - 5
        except OSError:
            return False

    def __str__(self) -> str:
        return f"{self.name}: {last_message(self._log)}"


def last_message(log: Path | None) -> str:
    """The last message of a job in its log, such as ``epoch 3/40: train loss …``, or nothing."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    messages = re.findall(r"^\d\d:\d\d:\d\d (.*)$", text, re.MULTILINE)
    return messages[-1] if messages else ""


class Bars(logging.Handler):
    """Follows Snakemake's events and draws."""

    def __init__(self, workflow):
        super().__init__(logging.INFO)
        self._workflow = workflow
        self._footer = Footer(sys.stderr)
        self._signs = signs(sys.stderr.encoding)
        self._jobs: dict[int, RunningJob] = {}
        self._done = self._total = 0
        self._began = time.monotonic()
        self._ended = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Counts jobs by Snakemake's events; records without one are ignored."""
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO and not self._workflow.dryrun and not self._total:
            self._total = record.stats["total"]
            threading.Thread(target=self._draw_often, daemon=True).start()
        elif event == LogEvent.JOB_INFO:
            name = " ".join([record.rule_name, *map(str, dict(record.wildcards).values())])
            log = Path(record.log[0]) if record.log else None
            self._jobs[record.jobid] = RunningJob(name, log)
        elif event == LogEvent.JOB_FINISHED:
            self._jobs.pop(record.job_id, None)
            self._done += 1
        elif event == LogEvent.JOB_ERROR:
            self._jobs.pop(record.jobid, None)

    def close(self) -> None:
        """Takes the bars away: Snakemake closes its handlers at the end, however it ends."""
        self._ended.set()
        with self.lock:
            self._footer.remove()
        super().close()

    def _draw_often(self) -> None:
        while not self._ended.wait(EVERY_S):
            with self.lock:
                if not self._ended.is_set():
                    self._footer.show(self._lines())

    def _lines(self) -> list[str]:
        running = [job for job in self._jobs.values() if job.begun()]
        waiting = self._total - self._done - len(running)
        done, left = self._signs
        bar = done * (WIDTH * self._done // self._total)
        passed = clock(time.monotonic() - self._began)
        first = (
            f"|{bar:{left}<{WIDTH}}| {self._done} of {self._total} done, {len(running)} running, "
            f"{waiting} waiting, {passed}"
        )
        return [first, *map(str, running[:SHOWN])]
