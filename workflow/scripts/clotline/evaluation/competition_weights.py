"""The weights of the RSNA-STR competition's metric, apart from all that is computed with them.

https://www.kaggle.com/c/rsna-str-pulmonary-embolism-detection: a training that lowers the metric
hangs on these numbers alone.
"""

from clotline.labels import STUDY_LABELS

#: Weight of each study label; one that the competition did not have weighs nothing.
WEIGHTS = {
    "negative_exam_for_pe": 0.0736196319,
    "rv_lv_ratio_gte_1": 0.2346625767,
    "rv_lv_ratio_lt_1": 0.0782208589,
    "leftsided_pe": 0.06257668712,
    "chronic_pe": 0.1042944785,
    "rightsided_pe": 0.06257668712,
    "acute_and_chronic_pe": 0.1042944785,
    "central_pe": 0.1877300613,
    "indeterminate": 0.09202453988,
}

#: The same in the order of the models' outputs.
LABEL_WEIGHTS = tuple(WEIGHTS.get(name, 0.0) for name in STUDY_LABELS)

#: Weight of a slice, before the share of positive slices of its study.
IMAGE_WEIGHT = 0.07361963
