"""The site file: which qsub options a job gets, and which line gave which option."""

import configparser
import os
import re
import shlex
from pathlib import Path

from gridengine.jobs import read_script

#: In the order in which qsub sees them.
QSUB_OPTIONS = ("every_job", "cpu_job", "gpu_job", "parallel_job", "memory", "time", "verify")
DEFAULTS = {
    "qsub": dict.fromkeys(QSUB_OPTIONS, ""),
    "job": {"setup": "", "scratch": ""},
    "polling": {"seconds": "10", "patience": "60", "accounting": "yes"},
}


class SiteError(Exception):
    """Something in the site file that its author must change."""


def site_file() -> Path:
    """The site file in use."""
    return Path(
        os.environ.get("CLOTLINE_SITE") or Path(__file__).resolve().parent.parent / "site.ini"
    )


class Site:
    """A site file's content.

    Attributes:
        path: the file.
        setup: shell lines that run before each job.
        scratch: a folder of the node's own disk for copies of shards, or an empty string.
        poll_seconds: the least time between two calls of qstat, or of qacct.
        patience: seconds to wait for the accounting record of a job that left the queue.
        accounting: whether qacct may be asked.
    """

    def __init__(self, path: Path | None = None):
        self.path = path or site_file()
        parser = configparser.ConfigParser(interpolation=None, comment_prefixes=(";", "#"))
        parser.read_dict(DEFAULTS)
        try:
            self._text = read_script(self.path)
            parser.read_string(self._text)
        except (OSError, configparser.Error) as error:
            raise SiteError(f"{self.path}: {error}") from None
        for section in parser.sections():
            for option in parser[section]:
                if option not in DEFAULTS.get(section, ()):
                    known = ", ".join(DEFAULTS.get(section, DEFAULTS))
                    raise SiteError(f"{self.path}: [{section}] {option} is unknown; known: {known}")
        self._qsub = parser["qsub"]
        self.setup = parser["job"]["setup"].strip()
        self.scratch = parser["job"]["scratch"].strip()
        try:
            self.poll_seconds = parser["polling"].getfloat("seconds")
            self.patience = parser["polling"].getfloat("patience")
            self.accounting = parser["polling"].getboolean("accounting")
        except ValueError as error:
            raise SiteError(f"{self.path}: [polling]: {error}") from None

    def arguments(self, job) -> dict[str, list[str]]:
        """The site's qsub arguments for a job, by the option of the site file that gave them."""
        slots = max(job.threads, 1)
        values = {
            "rule": job.rule,
            "threads": slots,
            "gpu": job.gpu,
            "seconds": job.seconds,
            "hms": f"{job.seconds // 3600}:{job.seconds // 60 % 60:02d}:{job.seconds % 60:02d}",
            "mem_mb": job.mem_mb,
            "mem_gb": _round_up(job.mem_mb, 1000),
            "mem_mb_per_slot": _round_up(job.mem_mb, slots),
            "mem_gb_per_slot": _round_up(job.mem_mb, 1000 * slots),
        }
        wanted = {
            "every_job": True,
            "cpu_job": not job.gpu,
            "gpu_job": job.gpu,
            "parallel_job": slots > 1,
            "memory": job.mem_mb,
            "time": job.seconds,
            "verify": True,
        }
        arguments = {}
        for option in QSUB_OPTIONS:
            if wanted[option] and self._qsub[option]:
                try:
                    arguments[option] = shlex.split(self._qsub[option].format(**values))
                except (KeyError, IndexError, ValueError) as error:
                    known = ", ".join(f"{{{name}}}" for name in values)
                    raise SiteError(
                        f"{self.where(option)}: cannot fill in {error}; known names: {known}"
                    ) from None
        return arguments

    def where(self, option: str) -> str:
        """File and line of an option of [qsub], with what stands there."""
        for number, line in enumerate(self._text.splitlines(), start=1):
            if re.match(rf"{option}\s*[=:]", line):
                return f"{self.path}, line {number}: {line.strip()}"
        return f"{self.path}: {option}"

    def culprit(self, words: str, arguments: dict[str, list[str]]) -> str | None:
        """The option of the site file that Grid Engine's refusal is about, if it names one."""
        named = set(re.findall(r"\"([^\"]+)\"|'([^']+)'", words))
        named = {name for pair in named for name in pair if name}
        for option, given in arguments.items():
            pieces = {piece for text in given for piece in re.split(r"[=,]", text)}
            if named & pieces:
                return option
        return None


def _round_up(amount: int, unit: int) -> int:
    return -(-amount // unit)
