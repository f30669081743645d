"""Names and order of the columns in an RSNA-STR Pulmonary Embolism labels file.

Source of the label set: Colak et al., "The RSNA Pulmonary Embolism CT Dataset",
Radiology: Artificial Intelligence 3(2), 2021, doi 10.1148/ryai.2021200254.
"""

STUDY_UID = "StudyInstanceUID"
SERIES_UID = "SeriesInstanceUID"
SOP_UID = "SOPInstanceUID"
UIDS = (STUDY_UID, SERIES_UID, SOP_UID)

#: The one label that differs between the slices of a study.
IMAGE_LABEL = "pe_present_on_image"

#: The nine labels that the study-level models predict, in the order of their outputs.
STUDY_LABELS = (
    "negative_exam_for_pe",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "chronic_pe",
    "rightsided_pe",
    "acute_and_chronic_pe",
    "central_pe",
    "indeterminate",
)

#: All 17 columns, in the order of the published labels file.
COLUMNS = (
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

SPLITS = ("train", "valid", "test")

#: A label of what nobody has labelled.
UNKNOWN = -1
