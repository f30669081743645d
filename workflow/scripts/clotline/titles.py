"""What targets are called in figures and pages, and how numbers are written there."""

import re

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

MINUS = "−"


def counted(number: int, one: str, many: str) -> str:
    """``1 slice``, ``1,024 slices``."""
    return f"{number:,} {one if number == 1 else many}"


def signed(value: float, decimals: int = 3) -> str:
    """``+0.012`` or ``−0.012``: a difference, with the minus sign of all pages."""
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def with_minus(text: str) -> str:
    """A text with the minus sign of all pages before its negative numbers.

    Hyphens within words, dates, ranges and names stay what they are.
    """
    return re.sub(r"(?<![\w.-])-(?=\d)", MINUS, text)
