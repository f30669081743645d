"""The devices, precision and memory that networks compute with."""

import ctypes
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from clotline.errors import ClotlineError
from clotline.job.device import VARIABLE, is_cpu_chosen, say_device


def make_fabric(precision: str, gpus: int, threads: int) -> Fabric:
    """Lightning's device and precision for a job on one device.

    Args:
        precision: Lightning's name, or auto for bf16-mixed where the GPU or CPU has bfloat16
            units and 32-true elsewhere.
        gpus: GPUs that the job was given; 0 is the CPU.
        threads: threads of the job; sums on a CPU depend on their number in the last bits.
    """
    return make_training_fabric(precision, min(gpus, 1), threads)


def make_training_fabric(precision: str, gpus: int, threads: int, processes: int = 1) -> Fabric:
    """Lightning's devices and precision for a training.

    `clotline.models.training.train_together` says how several work together.

    Args:
        precision: as for `make_fabric`.
        gpus: GPUs that the job was given, each for a process of its own; 0 is the CPU.
        threads: threads of the job, divided among the processes.
        processes: without a GPU, processes that train together.

    Raises:
        ClotlineError: there are fewer GPUs than asked for; or, on a cluster, none.
    """
    cuda = gpus > 0 and not is_cpu_chosen() and torch.cuda.is_available()
    if cuda and gpus > (there := torch.cuda.device_count()):
        raise ClotlineError(
            f"the job is to use {gpus} GPUs (its resource gpu), and its machine shows it "
            f"{there}: lower the resource, or have the queueing system give it as many"
        )
    say_device(gpus, _name(gpus) if cuda else None, _why_no_gpu() if gpus and not cuda else "")
    devices = gpus if cuda else processes
    torch.set_num_threads(max(1, threads // devices))
    _keep_freed_memory()
    if precision == "auto":
        precision = "bf16-mixed" if _has_bfloat16(cuda) else "32-true"
    if precision == "32-true":
        # By default a GPU's convolutions round float32 to ten bits of mantissa (TF32).
        torch.backends.cudnn.allow_tf32 = False
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        # Forked, so that they have the job's log and read nothing twice.
        strategy="ddp_fork" if devices > 1 else "auto",
        # One job on one host, whatever a queueing system's variables say.
        plugins=LightningEnvironment(),
        precision=precision,
    )
    if devices == 1:
        fabric.launch()
    return fabric


def _name(gpus: int) -> str:
    # Asking for the name uses the GPU, and a process that has used one can fork none that use one.
    return torch.cuda.get_device_name(0) if gpus == 1 else "each for a process of its own"


def _why_no_gpu() -> str:
    """Why torch sees no GPU, in a few words."""
    if is_cpu_chosen():
        return f"{VARIABLE}=cpu chooses it"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this torch, {torch.__version__}, was built without CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip().lstrip("-1"):
        return f"CUDA_VISIBLE_DEVICES={visible} hides every GPU"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition(". ")[0].splitlines()
        return first[0] if first else type(error).__name__
    return "torch.cuda.is_available() says so"


def _keep_freed_memory() -> None:
    """Makes glibc keep the memory of large tensors for those of the next batch.

    It would return it to the kernel, which clears every page before it is used again: on a CPU
    that costs EfficientNet-B0 half of its speed when it makes features.
    """
    # Other C libraries have other ways.
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


#: Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def _has_bfloat16(cuda: bool) -> bool:
    if not cuda:
        return torch.cpu.get_capabilities().get("avx512_bf16", False)
    if torch.cuda.is_initialized():
        return torch.cuda.is_bf16_supported()
    # In another process: one that has used a GPU can fork none that use one.
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        return pool.submit(torch.cuda.is_bf16_supported).result()
