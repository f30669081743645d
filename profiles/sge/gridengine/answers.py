"""What Grid Engine's commands answer, told from what a site has them print beside it.

Job submission verifiers (JSV), wrappers and login banners add lines before and after an answer, and
a wrapper may drop an option, such as qsub's -terse.
"""

import re

#: qsub's answer without -terse; an array job's number has its tasks behind a full stop.
_IN_WORDS = re.compile(r"\bYour job(?:-array)? (\d+)\S* \(\"([^\"]*)\"\) has been submitted")
#: A line of qsub's answer with -terse.
_TERSE = re.compile(r"^[ \t]*(\d+)(?:\.\d+-\d+:\d+)?[ \t]*$", re.MULTILINE)
#: A word that can be the number of a job: no part of a date, a version, a size or a name.
_NUMBER = re.compile(r"(?<![\w.:/%+-])#?(\d{1,10})(?![\w:/%+-]|\.\w)")
#: Greedy: within the outermost element lies another one of the same name.
_QUEUE = re.compile(r"<job_info\b.*</job_info>|<job_info[^>]*/>", re.DOTALL)
_BETWEEN_RECORDS = re.compile(r"^={20,}[ \t]*$", re.MULTILINE)


def told_numbers(text: str, name: str) -> list[str]:
    """The job numbers that qsub itself tells, by its own form of words or by -terse.

    Args:
        text: what it printed.
        name: the job's name, as given with -N.

    Returns:
        One number where there is no doubt; several where lines of a number alone stand beside each
        other, as when a banner has one.
    """
    words = _IN_WORDS.findall(text)
    own = [number for number, of in words if of == name] or [number for number, _ in words]
    return list(dict.fromkeys(own or _TERSE.findall(text)))


def possible_numbers(text: str) -> list[str]:
    """Whatever in ``text`` could be a job's number, as in ``Job <101> is submitted``."""
    return list(dict.fromkeys(_NUMBER.findall(text)))


def queue_document(text: str) -> str | None:
    """The XML in what ``qstat -xml`` printed; None where there is none."""
    found = _QUEUE.search(text)
    return found[0] if found else None


def job_details(text: str) -> dict[str, str]:
    """The fields of ``qstat -j`` with their values, such as ``job_name`` and ``cwd``."""
    fields = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and re.fullmatch(r"[a-z_]+(?: +\d+)?", name.strip()):
            fields.setdefault(name.strip(), value.strip())
    return fields


def account_records(text: str) -> dict[str, dict[str, str]]:
    """Qacct's records by job number."""
    records = {}
    for block in _BETWEEN_RECORDS.split(text):
        record = {}
        for line in block.splitlines():
            words = line.split(None, 1)
            if len(words) == 2:
                # What a site prints behind the last record is no part of it.
                record.setdefault(words[0], words[1].strip())
        if record.get("jobnumber", "").isdigit():
            records[record["jobnumber"]] = record
    return records
