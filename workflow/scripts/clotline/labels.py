"""Names and order of the columns in an RSNA-STR Pulmonary Embolism labels file.

Source of the label set: Colak et al., "The RSNA Pulmonary Embolism CT Dataset",
Radiology: Artificial Intelligence 3(2), 2021, doi 10.1148/ryai.2021200254.
"""

from enum import Enum

STUDY_UID = "StudyInstanceUID"
SERIES_UID = "SeriesInstanceUID"
SOP_UID = "SOPInstanceUID"
UIDS = (STUDY_UID, SERIES_UID, SOP_UID)

#: In a SOPInstanceUID between that of a file of many frames and the number of one of them.
FRAME_MARK = "#"


def slice_path(study: str, series: str, sop: str) -> str:
    """Where a slice lies in the competition's layout; a frame in the file of all frames."""
    return f"{study}/{series}/{sop.partition(FRAME_MARK)[0]}.dcm"


#: The one label that differs between the slices of a study.
IMAGE_LABEL = "pe_present_on_image"


class Role(Enum):
    """What a study label says; a label that is OTHER says nothing about PE."""

    ABSENT = "there is no PE, or none could be seen"
    RATIO = "of a PE: whether the right ventricle is as wide as the left"
    SIDE = "of a PE: where it lies"
    AGE = "of a PE: how old it is"
    OTHER = "anything else"


#: The labels that the study-level models predict, in the order of their outputs, with their roles.
#: A further one goes to the end; a labels file then needs a column of its name.
ROLES = {
    "negative_exam_for_pe": Role.ABSENT,
    "rv_lv_ratio_gte_1": Role.RATIO,
    "rv_lv_ratio_lt_1": Role.RATIO,
    "leftsided_pe": Role.SIDE,
    "chronic_pe": Role.AGE,
    "rightsided_pe": Role.SIDE,
    "acute_and_chronic_pe": Role.AGE,
    "central_pe": Role.SIDE,
    "indeterminate": Role.ABSENT,
}
STUDY_LABELS = tuple(ROLES)

#: The 17 columns of the published labels file, in their order.
_PUBLISHED = (
    *UIDS,
    IMAGE_LABEL,
    "negative_exam_for_pe",
    "qa_motion",
    "qa_contrast",
    "flow_artifact",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "chronic_pe",
    "true_filling_defect_not_pe",
    "rightsided_pe",
    "acute_and_chronic_pe",
    "central_pe",
    "indeterminate",
)

#: The columns that a labels file must have.
COLUMNS = (*_PUBLISHED, *(name for name in STUDY_LABELS if name not in _PUBLISHED))


def labels_of(*roles: Role) -> tuple[str, ...]:
    """The study labels of some roles, in the order of the models' outputs."""
    return tuple(name for name, role in ROLES.items() if role in roles)


SPLITS = ("train", "valid", "test")

#: The value of a label that nobody has given.
UNKNOWN = -1

#: The study labels that say that there is no PE to be seen, and those that say something about one.
NO_PE_LABELS = labels_of(Role.ABSENT)
PE_LABELS = labels_of(Role.RATIO, Role.SIDE, Role.AGE)


def pe_probability(negative, indeterminate):
    """Probability that PE is present, from those of the two labels that say otherwise.

    The two are outputs of their own that may add up to more than 1. 1 - negative - indeterminate
    would then have to be cut off at 0, which no output said; this product never is, and it falls
    as either rises.

    Args:
        negative: probability of negative_exam_for_pe, a float or an array of float64.
        indeterminate: that of indeterminate, of the same shape.
    """
    return (1 - negative) * (1 - indeterminate)
