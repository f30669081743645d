"""Lack of memory, in whatever words a library says it."""

import errno
import re
from concurrent.futures.process import BrokenProcessPool

#: A GPU's memory: raising the job's own does not help.
_GPU = re.compile(
    r"(CUDA|HIP|GPU).{0,40}out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUFFT_ALLOC_FAILED",
    re.IGNORECASE,
)
#: Threads and processes: their stacks need memory, and systems limit their number.
_THREADS = re.compile(
    r"can't start new thread|pthread_create|unable to create (a )?(new )?thread"
    r"|std::system_error.*Resource temporarily unavailable",
    re.IGNORECASE,
)
_MEMORY = re.compile(
    r"DefaultCPUAllocator|(can't|cannot|could not|failed to|unable to) (re)?allocate\b.*"
    r"|not enough memory|out of memory|std::bad_alloc|memory allocation failed"
    r"|malloc of size \d+ failed"
    # torch and its loading processes.
    r"|DataLoader worker .*(killed by signal|exited unexpectedly)"
    + "|" + re.escape("Cannot allocate memory"),
    re.IGNORECASE,
)  # fmt: skip

#: Types of memory that a job can lack.
GPU, THREADS, MEMORY = "GPU", "threads", "memory"


def shortage(error: BaseException | None) -> str | None:
    """Which type of memory was lacking, by an error or one that led to it; None where none was."""
    while error is not None:
        text = str(error)
        if type(error).__name__ == "OutOfMemoryError" or _GPU.search(text):
            return GPU
        if _THREADS.search(text) or _is_refused_process(error):
            return THREADS
        if isinstance(error, MemoryError | BrokenProcessPool) or _MEMORY.search(text):
            return MEMORY
        if getattr(error, "errno", None) == errno.ENOMEM:
            return MEMORY
        error = error.__cause__
    return None


def _is_refused_process(error: BaseException) -> bool:
    # From fork: an error about a file has the file's name.
    return isinstance(error, BlockingIOError) and error.filename is None


def describe(error: BaseException) -> str:
    """The first sentences of an error that say what was lacking, in one line."""
    while error.__cause__ is not None and shortage(error.__cause__):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for pattern in (_GPU, _THREADS, _MEMORY):
        # The text of an error in another process is its traceback; its message comes last.
        for line in reversed(lines):
            if pattern.search(line):
                return _shortened(line)
    return _shortened(lines[0]) if lines else type(error).__name__


def _shortened(line: str) -> str:
    # "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"
    line = re.sub(r"^[\w.]+(Error|Exception): ", "", line)
    return line.partition(" Of the allocated memory")[0].strip(" .")


def other_holders(error: BaseException) -> list[tuple[str, str]]:
    """Other processes that torch saw in a GPU's memory: their numbers, and what each holds."""
    return re.findall(r"Process (\d+) has ([\d.]+ \w+) memory in use", str(error))
