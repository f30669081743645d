from dataclasses import replace

import pytest

from clotline.data.dicom.traits import Traits
from clotline.data.scans import are_one, one_stack, positions_of, split_scans

SLICE = Traits(axes=(1, 0, 0, 0, 1, 0), matrix=(512, 512), spacing=(0.7, 0.7), frame="1.9")


def stack(count=20, first=1, at=0.0, step=2.0, **traits):
    return [
        replace(SLICE, position=at + step * k, instance=float(first + k), **traits)
        for k in range(count)
    ]


def parts(traits):
    """The slices of each scan, and what tells it."""
    return [(sorted(part.members), part.told_by) for part in split_scans(traits)]


def both(count=20):
    return [list(range(count)), list(range(count, 2 * count))]


def test_one_stack_is_one_scan():
    assert parts(stack()) == [(list(range(20)), "")]


@pytest.mark.parametrize(
    ("one", "other", "told_by"),
    [
        ({"kernel": "B30f"}, {"kernel": "B70f"}, "ConvolutionKernel B"),
        ({"matrix": (512, 512)}, {"matrix": (256, 256)}, "matrix "),
        ({"spacing": (0.7, 0.7)}, {"spacing": (0.4, 0.4)}, "PixelSpacing 0."),
        ({"axes": (1, 0, 0, 0, 1, 0)}, {"axes": (-1, 0, 0, 0, -1, 0)}, "ImageOrientationPatient "),
        ({"acquisition": 1.0}, {"acquisition": 2.0}, "AcquisitionNumber "),
        ({"temporal": 1.0}, {"temporal": 2.0}, "TemporalPositionIdentifier "),
        ({"stack": "1"}, {"stack": "2"}, "StackID "),
        ({"thickness": 1.0}, {"thickness": 10.0}, "SliceThickness "),
        ({"image_type": ("ORIGINAL",)}, {"image_type": ("DERIVED",)}, "ImageType "),
        ({"frame": "1.8"}, {"frame": "1.9"}, "FrameOfReferenceUID 1."),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 1.0], ids=["same positions", "between each other"])
def test_what_differs_in_one_place_is_two_scans(one, other, told_by, shift):
    found = parts(stack(**one) + stack(first=21, at=shift, **other))
    assert [members for members, _ in found] == both()
    assert all(text.startswith(told_by) for _, text in found)


def test_a_scan_that_goes_on_step_by_step_is_one():
    steps = [s for k in range(5) for s in stack(4, 1 + 4 * k, 8.0 * k, acquisition=float(k))]
    assert parts(steps) == [(list(range(20)), "")]


def test_numbers_that_go_through_the_same_space_again_are_of_a_second_scan():
    assert parts(stack() + stack(first=21, at=1.0)) == [
        (both()[0], "InstanceNumber 1 to 20"),
        (both()[1], "InstanceNumber 21 to 40"),
    ]
    # Of any step, also where some positions are the same.
    coarse = stack(10, 21, step=4.0)
    assert [members for members, _ in parts(stack() + coarse)] == [both()[0], list(range(20, 30))]


def test_times_tell_two_scans_apart_whose_numbers_alternate():
    first = [replace(s, instance=2.0 * k, time=120000.0) for k, s in enumerate(stack())]
    second = [replace(s, instance=2.0 * k + 1, time=120100.0) for k, s in enumerate(stack(at=1.0))]
    assert parts(first + second) == [
        (both()[0], "AcquisitionTime 120000 to 120000"),
        (both()[1], "AcquisitionTime 120100 to 120100"),
    ]


@pytest.mark.parametrize(
    "numbers",
    [
        range(40, 0, -1),
        [*range(20, 0, -1), *range(40, 20, -1)],  # two blocks, one behind the other
        [(17 * k) % 41 for k in range(1, 41)],
        [*range(2, 41), 1],  # one slice alone is no scan
    ],
)
def test_numbers_that_say_nothing_leave_a_scan_whole(numbers):
    scan = [replace(s, instance=float(n)) for s, n in zip(stack(40), numbers, strict=True)]
    assert parts(scan) == [(list(range(40)), "")]


def test_a_single_odd_picture_at_the_end_is_no_slice_of_the_scan():
    odd = stack(1, 21, 40.0, matrix=(416, 416))
    assert [members for members, _ in parts(stack() + odd)] == [list(range(20)), [20]]


def test_phases_at_the_same_positions_are_scans_by_their_instance_numbers():
    falling = [replace(s, instance=41.0 - k) for k, s in enumerate(stack())]
    found = parts(falling + stack())
    assert [members for members, _ in found] == [list(range(20, 40)), list(range(20))]
    assert found[0][1] == "phase 1 by InstanceNumber"


def test_bolus_tracking_within_a_scan_is_apart():
    tracker = [replace(SLICE, position=6.0, instance=50.0 + k, acquisition=2.0) for k in range(12)]
    found = parts(stack(acquisition=3.0) + tracker)
    assert [members for members, _ in found] == [*both()[:1], list(range(20, 32))]


@pytest.mark.parametrize("height", [6.0, 0.0, 38.0], ids=["within", "at the lower end", "upper"])
def test_bolus_tracking_that_nothing_names_takes_no_slices_place(height):
    tracker = [replace(SLICE, position=height, instance=1.0 + k) for k in range(12)]
    for scan in (stack(first=13), stack(first=13)[::-1]):
        renumbered = [replace(s, instance=13.0 + k) for k, s in enumerate(scan)]
        found = parts(renumbered + tracker)
        assert list(range(20)) in [members for members, _ in found]


def test_the_same_position_and_number_for_two_pictures_cannot_be_one_scan():
    (part,) = split_scans(stack() + stack())
    assert sorted(part.mixed) == [0, 20]


def test_numbers_that_come_twice_between_each_other_are_two_patients():
    (part,) = split_scans(stack() + stack(at=1.0))
    first, second = part.mixed
    assert {first, second} == {0, 20}


@pytest.mark.parametrize("turned", [1, -1], ids=["up", "down"])
def test_parts_of_a_scan_that_are_numbered_anew_are_one_scan(turned):
    """As of a table that moved on, in a series that an archive put together."""
    parts_of_it = stack(20) + stack(14, at=40.0) + stack(20, at=68.0)
    scan = [replace(s, position=turned * s.position) for s in parts_of_it]
    (part,) = split_scans(scan)
    assert sorted(part.members) == list(range(54)) and part.mixed is None


@pytest.mark.parametrize("number", [None, 1.0], ids=["no number", "one for all"])
def test_numbers_that_say_nothing_are_no_reason_to_refuse(number):
    (part,) = split_scans([replace(s, instance=number) for s in stack()])
    assert part.mixed is None


def test_the_order_of_the_files_does_not_matter():
    traits = stack(acquisition=1.0) + stack(first=21, acquisition=2.0)
    found = split_scans(traits[::-1])
    assert [part.told_by for part in found] == ["AcquisitionNumber 1", "AcquisitionNumber 2"]


def test_a_position_that_is_the_same_in_all_slices_is_not_known():
    same = [replace(s, position=0.0, location=float(k)) for k, s in enumerate(stack(3))]
    assert positions_of(same) == [0.0, 1.0, 2.0]
    alike = [replace(s, position=0.0, location=5.0) for s in stack(3)]
    assert positions_of(alike) == [0.0, 0.0, 0.0]
    assert positions_of(stack(3)) == [0.0, 2.0, 4.0]


def test_stacks_lie_one_behind_the_other():
    assert one_stack([[0, 1, 2], [3, 4]])
    assert one_stack([[3, 4], [0, 1, 2]])
    assert not one_stack([[0, 1, 2], [1.5, 2.5]])
    assert not one_stack([[0, 1, 2], [2, 3]])
    assert not one_stack([[0, 1, 2], [30, 31]])
    assert not one_stack([[0, 1, None], [3]])


def test_halves_of_one_scan_are_one():
    assert are_one([stack(10), stack(10, 11, 20.0)])
    assert are_one([stack(10, 11, 20.0), stack(10)])
    singles = [[s] for s in stack(20)]
    assert are_one(singles)


@pytest.mark.parametrize(
    "other",
    [
        stack(10, 1, 20.0),
        stack(10, 11, 10.0),
        stack(10, 11, 200.0),
        stack(10, 11, 20.0, frame="1.7"),
        stack(10, 11, 20.0, acquisition=7.0),
        stack(10, 11, 20.0, kernel="B70f"),
    ],
    ids=["numbers start again", "overlap", "far away", "frame", "acquisition", "kernel"],
)
def test_what_does_not_go_on_is_another_scan(other):
    assert not are_one([stack(10), other])
