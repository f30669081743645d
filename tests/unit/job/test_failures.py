import errno
import mmap
import os
import re
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from clotline.job.failures import explain


def job(**resources):
    return SimpleNamespace(rule="train_cnn", resources=resources, output=["results/cnn/a.pt"])


def kill_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_of_a_pool_is_reported_as_lack_of_memory():
    with pytest.raises(Exception) as caught, ProcessPoolExecutor(1) as pool:
        pool.submit(kill_this_process).result()
    assert explain(caught.value, job(mem_mb=8000)).startswith("out of memory (A process in")


@pytest.mark.parametrize("take", [bytearray, partial(mmap.mmap, -1)])
def test_memory_that_the_system_refuses_is_reported_as_that(take):
    with pytest.raises((MemoryError, OSError)) as caught:
        take(1 << 60)
    assert "out of memory" in explain(caught.value, job(mem_mb=8000))


def test_a_lack_of_memory_is_met_with_twice_as_much():
    said = explain(MemoryError("no room."), job(mem_mb=8000))
    assert said == (
        "out of memory (no room): rule train_cnn was given mem_mb=8000; give it more, as with "
        "--set-resources train_cnn:mem_mb=16000"
    )
    said = explain(MemoryError(), job())
    assert said == "out of memory (MemoryError): give rule train_cnn more memory (mem_mb)"


def test_a_full_disk_is_named_by_the_jobs_output():
    text = explain(OSError(errno.ENOSPC, "No space left on device"), job())
    assert re.search(r"the disk /\S* is full: results/cnn/a.pt needs more than", text)


def test_any_other_error_is_given_with_its_kind():
    assert explain(KeyError("nine"), job()) == "KeyError: 'nine'"


def training(rule="train_cnn", **wildcards):
    config = {"cnn": {"resnext50": {"batch_size": 16}}, "lstm": {"combined-study": {}}}
    config["lstm"]["combined-study"]["batch_size"] = 32
    found = job(mem_mb=8000)
    found.rule, found.config, found.wildcards = rule, config, SimpleNamespace(**wildcards)
    return found


def test_torchs_lack_of_memory_is_met_like_numpys_and_names_the_batches():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    said = explain(caught.value, training(backbone="resnext50"))
    assert said.startswith("out of memory (")
    assert said.endswith(
        "rule train_cnn was given mem_mb=8000; give it more, as with --set-resources "
        "train_cnn:mem_mb=16000, or lower cnn.resnext50.batch_size (now 16)"
    )
    said = explain(caught.value, training("train_cnn_of_fold", backbone="resnext50", fold="2"))
    assert "train_cnn_of_fold:mem_mb=16000, or lower cnn.resnext50.batch_size" in said


def test_a_finetuned_networks_batches_are_named_by_its_entry():
    found = training("finetune", lstm="winner-finetuned-joint")
    found.config = {"finetune": {"winner-joint": {"batch_size": 4}}}
    said = explain(torch.OutOfMemoryError("CUDA out of memory."), found)
    assert "lower finetune.winner-joint.batch_size (now 4)" in said


def test_threads_that_cannot_start_are_lack_of_memory_or_of_processes():
    said = explain(RuntimeError("can't start new thread"), job(mem_mb=8000))
    assert said.startswith("out of memory (can't start new thread): rule train_cnn was given ")
    assert "--set-threads train_cnn=1" in said
    assert "ulimit -u" in said


def test_a_full_gpu_is_not_met_with_more_of_the_hosts_memory():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    said = explain(error, training("train_lstm", lstm="combined-study"))
    assert said.startswith("out of memory (CUDA out of memory. Tried to allocate 2.00 GiB): ")
    assert "nvidia-smi" in said
    assert "lower lstm.combined-study.batch_size (now 32)" in said
    assert "--set-resources" not in said
    error = torch.OutOfMemoryError(f"{error} Process 4711 has 70.00 GiB memory in use.")
    said = explain(error, job())
    assert "process 4711 holds 70.00 GiB of this GPU: wait for its end" in said
