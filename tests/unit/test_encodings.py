"""Text has the same bytes whatever the machine's locale is."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from locales import LOCALES, make_locale

import clotline
from clotline.workflow.live_bars import signs

PROJECT = Path(__file__).parents[2]
SCRIPTS = Path(clotline.__file__).parents[1]


@pytest.fixture(params=LOCALES, ids=lambda names: names[1])
def environment(request, tmp_path):
    """The environment of a machine whose locale is not UTF-8."""
    return make_locale(tmp_path, *request.param) | {"PYTHONPATH": str(SCRIPTS)}


def test_the_locale_is_really_another(environment):
    code = "import locale; print(locale.getencoding())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == environment["LC_ALL"].partition(".")[2]


JOB = """
import sys
from pathlib import Path
from types import SimpleNamespace
from clotline.job.run import job, log
from clotline.workflow.config import load_schema

snakemake = SimpleNamespace(rule="plot", wildcards=["é"], log=["plot.log"], output=["a"])
snakemake.resources = {}
with job(snakemake):
    load_schema()
    log.info("sensitivity ≥ 0.90, 0.853–0.961, 256 × 256, 肺, %s", "IM\\udcff")
    print("printed: 肺 ≥", Path("x"))
    print("to standard error: 肺 ≥", file=sys.stderr)
"""


def test_a_jobs_log_and_screen_are_utf_8(environment, tmp_path):
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "job.py"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    screen = done.stderr.decode("utf-8")
    assert done.returncode == 0, screen
    words = "sensitivity ≥ 0.90, 0.853–0.961, 256 × 256, 肺, IM\\udcff"
    assert f"] {words}" in screen
    log = (tmp_path / "plot.log").read_text(encoding="utf-8")
    for text in (words, "printed: 肺 ≥ x", "to standard error: 肺 ≥"):
        assert text in log


def test_the_table_at_the_end_is_printed(environment, tmp_path):
    shutil.copytree(PROJECT / "tools", tmp_path / "tools")
    (tmp_path / "results").mkdir()
    row = {"model": "combined-study", "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95}
    row |= {"level": "study", "n_studies": 67, "n_positive": 36, "note": ""}
    row |= {"baseline": "", "baseline_auroc": None, "above_baseline_low": None}
    pd.DataFrame([row]).to_csv(tmp_path / "results/metrics.csv", index=False)
    warning = {"model": "combined-study", "from": "test", "warning": "0.300 to 0.700 – has 0.5"}
    pd.DataFrame([warning]).to_csv(tmp_path / "results/warnings.csv", index=False)
    command = [sys.executable, "-m", "tools.show_results"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    screen = done.stdout.decode("utf-8")
    assert "0.900 (0.800–0.950)" in screen
    assert "warning: combined-study: 0.300 to 0.700 – has 0.5" in screen


@pytest.mark.parametrize(
    ("encoding", "bar"), [("utf-8", "█·"), ("iso-8859-1", "#."), ("gbk", "█·")]
)
def test_bars_are_drawn_with_what_a_terminal_has(encoding, bar):
    assert signs(encoding) == bar


def texts_without_an_encoding(path):
    """Lines of calls that read or write text in the locale's encoding, as ruff alone cannot tell.

    Ruff's rule follows names that it knows to be a `Path`; here every such call counts.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        base = getattr(getattr(node.func, "value", None), "id", "")
        modes = [a.value for a in node.args[:2] if isinstance(a, ast.Constant)]
        binary = any("b" in mode for mode in [*modes, given.get("mode")] if isinstance(mode, str))
        text = name in ("read_text", "write_text") or given.get("text") is True
        if name == "open" and base not in ("os", "gzip", "archive", "zipfile", "dicomsdl"):
            text |= not binary
        text |= name == "fdopen" and not binary
        if text and "encoding" not in given:
            yield f"{path.relative_to(PROJECT)}:{node.lineno}"


def test_every_text_names_its_encoding():
    folders = ("workflow", "profiles", "bench", "tools")
    paths = [path for folder in folders for path in sorted((PROJECT / folder).rglob("*.py"))]
    assert len(paths) > 90
    assert [line for path in paths for line in texts_without_an_encoding(path)] == []
    # The tests themselves run in UTF-8, and show that the scan sees something.
    assert list(texts_without_an_encoding(PROJECT / "tests/unit/job/test_files.py")) != []
