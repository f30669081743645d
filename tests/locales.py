"""Locales whose encoding is not UTF-8, made for the tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

#: Language and encoding.
LOCALES = (("de_DE", "ISO-8859-1"), ("zh_CN", "GB18030"))


def make_locale(folder: Path, language: str, encoding: str) -> dict[str, str]:
    """The environment of a machine with this locale."""
    source = Path(f"/usr/share/i18n/charmaps/{encoding}.gz")
    if not shutil.which("localedef") or not source.exists():
        pytest.skip("no sources of locales on this machine: see tests/system-packages.sh")
    name = f"{language}.{encoding}"
    subprocess.run(["localedef", "-i", language, "-f", encoding, folder / name], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONUTF8", "LC_"))}
    return environment | {"LOCPATH": str(folder), "LC_ALL": name, "PYTHONUTF8": "0"}
