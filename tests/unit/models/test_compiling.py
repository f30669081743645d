"""Compiled networks, whatever processor filled the cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clotline

PACKAGE = Path(clotline.__file__).parents[1]

#: How far a compiled network is from the same one that is not.
COMPARE = """
import torch
import torch._inductor.config
from torch import nn

from clotline.models.compiling import compile_network

# Half of the time, for a network this small.
torch._inductor.config.cpp_cache_precompile_headers = False
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU())
inputs = torch.randn(5, 8)
with torch.inference_mode():
    print(float((compile_network(model)(inputs) - model(inputs)).abs().max()))
"""


@pytest.mark.usefixtures("cpp_compiler")
def test_processors_that_share_a_cache_compute_the_same(tmp_path):
    """As nodes of a cluster do: one with the newest vector units here, then one without them."""
    shared = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PACKAGE)}
    own = torch.backends.cpu.get_cpu_capability()
    older = "avx2" if own == "AVX512" else "default"
    for capability in (own, older):
        command = [sys.executable, "-c", COMPARE]
        env = os.environ | shared | {"ATEN_CPU_CAPABILITY": capability.lower()}
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        assert float(done.stdout) < 1e-5, capability
    kinds = {path.name.removesuffix("-AMX") for path in tmp_path.iterdir()}
    assert {own, older.upper()} <= kinds
