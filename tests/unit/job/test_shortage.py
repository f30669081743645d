import errno
import os
import threading

import numpy as np
import pytest
import torch

from clotline.job.shortage import GPU, MEMORY, THREADS, describe, other_holders, shortage

#: As torch 2 says it.
CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB of "
    "which 1.20 GiB is free. Process 4711 has 70.00 GiB memory in use. Including non-PyTorch "
    "memory, this process has 7.95 GiB memory in use. Of the allocated memory 7.10 GiB is "
    "allocated by PyTorch, and 300.00 MiB is reserved by PyTorch but unallocated."
)


def caught(function):
    with pytest.raises(Exception) as error:
        function()
    return error.value


def test_torchs_own_words_of_the_hosts_memory():
    error = caught(lambda: torch.empty(1 << 60, dtype=torch.uint8))
    assert type(error) is RuntimeError
    assert shortage(error) == MEMORY
    assert "allocate" in describe(error)


def test_numpys_words():
    error = caught(lambda: np.empty(1 << 60, np.uint8))
    assert shortage(error) == MEMORY
    assert describe(error).startswith("Unable to allocate 1.00 EiB")


def test_a_thread_that_cannot_be_started():
    before = threading.stack_size(1 << 46)
    try:
        error = caught(threading.Thread(target=print).start)
    finally:
        threading.stack_size(before)
    assert str(error) == "can't start new thread"
    assert shortage(error) == THREADS


def test_a_process_that_cannot_be_started():
    assert shortage(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))) == THREADS
    of_a_file = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), "a.h5")
    assert shortage(of_a_file) is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError(f"Process 0 terminated:\nTraceback\ntorch.OutOfMemoryError: {CUDA}\n"),
    ],
)
def test_a_gpus_memory_is_another(error):
    assert shortage(error) == GPU


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 1152921504606846976 bytes. Error code 12 (Cannot allocate memory)",
        "unable to mmap 4096 bytes from file </torch_1>: Cannot allocate memory (12)",
        "std::bad_alloc",
        "malloc of size 128 failed",
        "DataLoader worker (pid 7) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
        "not enough memory: you tried to allocate 8 bytes.",
    ],
)
def test_the_hosts_memory_in_words_of_other_libraries(text):
    assert shortage(RuntimeError(text)) == MEMORY


@pytest.mark.parametrize(
    "error", [KeyError("nine"), ValueError("no memory of it"), OSError(errno.EIO, "x"), None]
)
def test_other_errors_are_none(error):
    assert shortage(error) is None


def test_the_error_behind_an_error_counts():
    outer = ValueError("no batch")
    outer.__cause__ = MemoryError("no room")
    assert shortage(outer) == MEMORY
    assert describe(outer) == "no room"


def test_a_gpus_lack_is_described_in_a_line_with_who_holds_it():
    error = RuntimeError(f"Process 0 terminated:\nTraceback\ntorch.OutOfMemoryError: {CUDA}\n")
    assert describe(error).startswith("CUDA out of memory. Tried to allocate 20.00 GiB")
    assert describe(error).endswith("this process has 7.95 GiB memory in use")
    assert other_holders(error) == [("4711", "70.00 GiB")]
