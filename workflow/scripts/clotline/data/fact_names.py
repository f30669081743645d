"""Names of what is told of how a study was made; what measures it needs pixels, and lies apart."""

from clotline.data.shards import BLOOD, KERNEL, ORIENTATION, THICKNESS

SPACING, COVERAGE, NOISE = "spacing_mm", "coverage_mm", "noise_hu"

#: Columns of `clotline.data.study_facts.study_facts` beside the study's UID.
QUANTITIES = (THICKNESS, SPACING, BLOOD, NOISE, COVERAGE)
CATEGORIES = (ORIENTATION, KERNEL)
