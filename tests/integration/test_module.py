"""Clotline as a part of another workflow, whose Snakefile lies in another folder."""

import re
import subprocess
import sys

import pandas as pd
import pytest
from workflow_run import PROJECT

CONFIG = """
phantom: {studies: 6, seed: 1, slices_min: 8, slices_max: 10}
data: {slices_per_shard: 90, split: {train: 0.5, valid: 0.25, test: 0.25}}
"""

MODULE = """
configfile: "mine.yaml"
module clotline:
    snakefile: "%s/Snakefile"
    config: config["clotline"]
use rule * from clotline
"""

MINE = """
rule mine:
    input: "results/data/slices.parquet"
    output: "mine.txt"
    shell: "ls {input} > {output}"
"""


@pytest.fixture
def run(tmp_path):
    """Runs another workflow in a folder of its own; gives what it printed."""

    def run_workflow(text, *arguments, config=CONFIG, check=True):
        (tmp_path / "Snakefile").write_text(text)
        (tmp_path / "mine.yaml").write_text(config)
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + done.stderr

    return run_workflow


def indented(text):
    return "clotline:" + text.replace("\n", "\n  ")


def test_as_a_module_of_another_workflow(run, tmp_path):
    text = MODULE % PROJECT
    assert len(text.strip().splitlines()) == 5
    run(text + MINE, "--cores", "2", "mine.txt", config=indented(CONFIG))
    assert (tmp_path / "mine.txt").read_text() == "results/data/slices.parquet\n"
    assert pd.read_parquet(tmp_path / "results/data/slices.parquet")["row"].notna().all()
    assert "Nothing to be done" in run(text + MINE, "-n", "mine.txt", config=indented(CONFIG))


def test_under_other_names_of_its_rules(run):
    text = (MODULE % PROJECT).replace("from clotline", "from clotline as pe_*")
    said = run(text, "-n", "-p", "pe_all", config=indented(CONFIG))
    assert "pe_train_cnn" in said and "viewer/index.html" in said


def test_included_in_another_workflow(run, tmp_path):
    text = f'include: "{PROJECT}/Snakefile"\n' + MINE
    # Without a configuration file the defaults hold, and say where the data would lie.
    assert "the data set is not there" in run(text, "-n", "mine.txt", check=False)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(CONFIG)
    said = run(text, "-n", "mine.txt")
    for rule in ("phantom", "shard", "slices", "mine"):
        assert re.search(rf"^{rule} +1\b", said, re.MULTILINE)


def test_a_prefix_is_refused_in_a_sentence(run):
    text = (MODULE % PROJECT).replace("\nuse", '\n    prefix: "ct"\nuse')
    said = run(text, "-n", "all", config=indented(CONFIG), check=False)
    assert "Clotline as a module takes no prefix" in said
    assert "--directory" in said
