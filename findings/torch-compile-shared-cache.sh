#!/usr/bin/env bash
# torch 2.14.1 compiles a network for the vector units of the processor at hand, and keeps the code it
# generated in TORCHINDUCTOR_CACHE_DIR under a key that does not name them. Another kind of processor
# that has the same cache takes that code and compiles it for its own units: where AVX-512 came first, a
# loop steps by 16 floats and AVX2 stores 8 of them, and the network computes wrong numbers without a
# warning. Alone, each kind is right. ATEN_CPU_CAPABILITY, torch's own switch, shows both on one machine.
# For clusters whose nodes differ and whose home or cache is shared: a training is right on the node that
# compiles first and wrong on the next.
# Needs g++ and a processor with AVX-512; torch and what it needs are several GB.
set -euo pipefail

grep -qw avx512f /proc/cpuinfo || {
    echo "needs a processor with AVX-512, to be both kinds" >&2
    exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6

cat >"$folder/compare.py" <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(1)
model = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU())
inputs = torch.randn(5, 8)
with torch.inference_mode():
    exact, compiled = model(inputs), torch.compile(model)(inputs)
print(float((compiled - exact).abs().max() / exact.abs().max()))
PYTHON

# The largest error of the compiled network, relative to the largest output.
error() {
    TORCHINDUCTOR_CACHE_DIR="$folder/$1" ATEN_CPU_CAPABILITY="$2" \
        "$folder/venv/bin/python" "$folder/compare.py" 2>"$folder/said" ||
        { cat "$folder/said" >&2 && exit 1; }
}

"$folder/venv/bin/python" -c 'import torch; print("torch", torch.__version__)'
first=$(error shared avx512)
second=$(error shared avx2)
alone=$(error own avx2)
echo "AVX-512, which fills the cache: $first"
echo "AVX2, with the same cache: $second"
echo "AVX2, with a cache of its own: $alone"
"$folder/venv/bin/python" - "$first" "$second" "$alone" <<'PYTHON'
import sys

first, second, alone = map(float, sys.argv[1:])
assert first < 1e-5 and alone < 1e-5, "alone a kind of processor is wrong, too"
assert not second < 0.01, "a shared cache is right now: the kind is in the key, or code fits both"
PYTHON
echo "as described"
