"""The sbatch of profiles/slurm against stand-ins for Slurm's own: no cluster needed."""

import asyncio
import logging
import os
import subprocess

import pytest
import yaml
from conftest import PROFILES, SNAKEMAKE
from snakemake_executor_plugin_slurm.job_status_query import query_job_status

SBATCH = PROFILES / "slurm/commands/sbatch"
BANNER = "echo '*** 2 days to the maintenance of 2026-11-30; 1234 core hours are left ***'"
OPTIONS = ("--parsable", "--job-name", "run-1", "--comment", "rule_shard_wildcards_000")


@pytest.fixture
def run(tmp_path):
    """Runs it with stand-ins of these texts; gives the process."""

    def run_sbatch(**scripts):
        scripts = {"squeue": "cat queue", "scancel": "echo $* >>cancelled"} | scripts
        for name, text in scripts.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)
        path = f"{SBATCH.parent}:{tmp_path / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["sbatch", *OPTIONS], cwd=tmp_path, env={**os.environ, "PATH": path},
            input="a script", capture_output=True, text=True, check=False,
        )  # fmt: skip

    (tmp_path / "queue").write_text(
        "99|rule_shard_wildcards_000\n101|rule_shard_wildcards_000\n102|rule_shard_wildcards_001\n"
    )
    return run_sbatch


ANSWERS = {
    "alone": "echo 101",
    "of a cluster": "echo '101;main'",
    "behind a notice": f"{BANNER}; echo 101",
    "before a notice": f"echo 101; {BANNER}",
    "in words": f"{BANNER}; echo Submitted batch job 101 on cluster main",
    "beside a line of another number": "echo 2026; echo 101",
    "nowhere": "echo Thank you for 1 job.",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_the_number_alone_is_printed(run, answer):
    done = run(sbatch=f"cat >given; echo words >&2; {answer}")
    assert (done.returncode, done.stdout) == (0, "101\n")
    assert done.stderr.startswith("words")


def test_the_script_and_the_options_reach_the_real_command(run, tmp_path):
    run(sbatch="cat >given; echo $* >options; echo 101")
    assert (tmp_path / "given").read_text() == "a script"
    assert (tmp_path / "options").read_text() == " ".join(OPTIONS) + "\n"


def test_a_refusal_is_handed_on(run, tmp_path):
    done = run(sbatch="echo error: invalid partition >&2; exit 3")
    assert (done.returncode, done.stdout) == (3, "")
    assert "invalid partition" in done.stderr
    assert not (tmp_path / "cancelled").exists()


def test_a_wrapper_that_fails_behind_sbatch_leaves_no_job(run, tmp_path):
    done = run(sbatch="echo 101; exit 1")
    assert (done.returncode, done.stdout) == (1, "")
    assert (tmp_path / "cancelled").read_text() == "101\n"


def test_a_number_that_nobody_tells_is_an_error(run, tmp_path):
    (tmp_path / "queue").write_text("")
    done = run(sbatch="echo Thank you.")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Thank you." in done.stderr and "scancel" in done.stderr


def test_what_stands_around_the_states_does_not_count(tmp_path):
    """The executor plugin itself reads them; lines without its separator are none."""
    command = tmp_path / "squeue"
    command.write_text(f"#!/bin/bash\n{BANNER}\necho '101|RUNNING'\n{BANNER}\n")
    command.chmod(0o755)
    states, _ = asyncio.run(query_job_status(str(command), logging.getLogger()))
    assert states == {"101": "RUNNING"}


def test_the_profile_puts_the_command_in_front(tmp_path):
    text = (PROFILES / "slurm/config.yaml").read_text()
    assert yaml.safe_load(text)["__use_yte__"] is True
    (tmp_path / "Snakefile").write_text(
        'import shutil\nprint("sbatch is", shutil.which("sbatch"))\nrule all:\n    shell: "true"\n'
    )
    done = subprocess.run(
        [SNAKEMAKE, "--profile", PROFILES / "slurm", "--executor", "local", "--cores", "1", "-n"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"sbatch is {SBATCH}" in done.stdout, done.stderr
