import logging

import pytest

from clotline.errors import ClotlineError
from clotline.job import device
from clotline.job.device import is_cpu_chosen, queue_job, say_device

REASON = "Found no NVIDIA driver on your system"
VARIABLES = ("SLURM_JOB_ID", "JOB_ID", "SGE_ROOT", "PBS_JOBID", "LSB_JOBID", "CLOTLINE_DEVICE")


@pytest.fixture(autouse=True)
def one_machine(monkeypatch):
    """Not a cluster's job, whatever runs the tests, and nothing said yet."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    device._say.cache_clear()


CLUSTERS = {
    "Slurm job 101": {"SLURM_JOB_ID": "101"},
    "Grid Engine job 7": {"JOB_ID": "7", "SGE_ROOT": "/opt/sge"},
    "PBS job 12.head": {"PBS_JOBID": "12.head"},
    "LSF job 3": {"LSB_JOBID": "3"},
}


@pytest.fixture(params=CLUSTERS)
def cluster(request, monkeypatch):
    for name, value in CLUSTERS[request.param].items():
        monkeypatch.setenv(name, value)
    return request.param


def test_a_clusters_job_is_known_by_its_variables(cluster):
    assert queue_job() == cluster


@pytest.mark.parametrize("variables", [{}, {"JOB_ID": "7"}, {"SLURM_JOB_ID": ""}])
def test_any_other_process_is_no_clusters_job(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert queue_job() is None


def test_no_gpu_on_a_cluster_is_an_error_that_says_why_and_what_to_do(cluster):
    with pytest.raises(ClotlineError) as caught:
        say_device(1, None, REASON)
    said = str(caught.value)
    for words in ("asked for 1 GPU ", REASON, cluster, "CLOTLINE_DEVICE=cpu"):
        assert words in said


def test_whoever_wants_the_cpu_on_a_cluster_says_so(cluster, monkeypatch, caplog):
    monkeypatch.setenv("CLOTLINE_DEVICE", "cpu")
    assert is_cpu_chosen()
    say_device(1, None, REASON)
    assert caplog.records[0].levelno == logging.WARNING


def test_on_one_machine_the_log_says_it_once(caplog):
    caplog.set_level(logging.INFO)
    for _ in range(3):
        say_device(2, None, REASON)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "though gpu=2 was asked for: Found no NVIDIA driver" in record.getMessage()


@pytest.mark.parametrize(
    ("gpus", "found", "words"),
    [
        (0, None, "computes on the CPU: it asked for no GPU"),
        (1, "NVIDIA H200", "computes on 1 GPU: NVIDIA H200"),
        (4, "each for a process of its own", "computes on 4 GPUs: each for"),
    ],
)
def test_what_was_asked_for_is_told_too(cluster, caplog, gpus, found, words):
    caplog.set_level(logging.INFO)
    say_device(gpus, found, "")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith(words)


def test_the_variable_has_one_value(monkeypatch):
    monkeypatch.setenv("CLOTLINE_DEVICE", "gpu")
    with pytest.raises(ClotlineError, match="it can be cpu, or not be set"):
        is_cpu_chosen()
