"""Networks compiled by torch, each kind of processor with a cache of its own."""

import os
from pathlib import Path

import torch
from torch import nn


def compile_network(model: nn.Module) -> nn.Module:
    """``torch.compile``, whose code for one kind of processor never serves another.

    A compiled graph's key in the cache does not say for which vector units its code was made (torch
    2.14.1, FxGraphHashDetails of torch/_inductor/codecache.py). Where nodes of a cluster share the
    cache, or ATEN_CPU_CAPABILITY changes, another kind takes it and computes wrong numbers without
    an error. So the kind is the last folder of TORCHINDUCTOR_CACHE_DIR, which this sets.

    Args:
        model: network; its parameters are shared.
    """
    # Not before something is compiled: it takes seconds.
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder, kind = Path(cache_dir()), kind_of_processor()
    if folder.name != kind:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / kind)
    return torch.compile(model)


def kind_of_processor() -> str:
    """What compiled code depends on: the vector units that torch uses, and matrix units (AMX)."""
    amx = torch.cpu.get_capabilities().get("amx_tile", False)
    return torch.backends.cpu.get_cpu_capability() + ("-AMX" if amx else "")
