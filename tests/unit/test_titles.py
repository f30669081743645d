import pytest

from clotline.titles import counted, signed, with_minus


def test_one_of_a_thing_is_not_several():
    assert counted(1, "slice", "slices") == "1 slice"
    assert counted(0, "slice", "slices") == "0 slices"
    assert counted(1024, "slice", "slices") == "1,024 slices"


def test_a_difference_has_the_pages_minus_sign():
    assert (signed(-0.0123), signed(0.5, 1)) == ("−0.012", "+0.5")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("above -123.4 mm", "above −123.4 mm"),
        ("blood of -5 HU (-7 to -3)", "blood of −5 HU (−7 to −3)"),
        ("2026-11-29", "2026-11-29"),
        ("file-3f21", "file-3f21"),
        ("resnext50-study, 40-keV", "resnext50-study, 40-keV"),
        ("1.2.-3", "1.2.-3"),
    ],
)
def test_negative_numbers_in_a_text_have_it_and_hyphens_stay(text, shown):
    assert with_minus(text) == shown
