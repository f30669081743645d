"""The embedded cohort: CT pulmonary angiograms of a phantom, with their labels file.

A study is drawn from a seed (`cohort`, of `anatomy` and `emboli`), pictured (`render`) and written
in the published layout (`files`). A clot's visibility is computed from the same shapes that are
drawn, so the labels need no picture.
"""

from .cohort import Study, draw_cohort, labels_table
from .files import write_cohort, write_study
from .render import artery_mask, clot_mask, render

__all__ = [
    "Study",
    "artery_mask",
    "clot_mask",
    "draw_cohort",
    "labels_table",
    "render",
    "write_cohort",
    "write_study",
]
