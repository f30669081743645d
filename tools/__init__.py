"""What people run by hand and no rule does: ``python -m tools.<name>`` in the project's folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))
