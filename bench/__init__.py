"""How fast Clotline is: against the published way, and against what the machine could do.

``python -m bench`` from the project's folder; ``python -m bench --help`` lists the parts.
"""

import os
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]

#: The variables that hold oneDNN and torch to a processor's units without AVX-512 and bfloat16.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}

sys.path.insert(0, str(PROJECT / "workflow/scripts"))

# As the Snakefile does for jobs.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
