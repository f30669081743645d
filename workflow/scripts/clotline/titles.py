"""What the targets are called in figures and pages."""

TITLES = {
    "pe_present": "PE present",
    "pe_present_on_image": "PE present on the slice",
    "pe_present_by_max": "PE present in the study, by its highest slice",
    "negative_exam_for_pe": "Negative exam",
    "rv_lv_ratio_gte_1": "RV/LV ratio ≥ 1",
    "rv_lv_ratio_lt_1": "RV/LV ratio < 1",
    "leftsided_pe": "Left-sided PE",
    "chronic_pe": "Chronic PE",
    "rightsided_pe": "Right-sided PE",
    "acute_and_chronic_pe": "Acute and chronic PE",
    "central_pe": "Central PE",
    "indeterminate": "Indeterminate",
}
