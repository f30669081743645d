#!/usr/bin/env bash
# A NIfTI can say twice where it lies, in its qform and in its sform. nibabel 5.4.2 takes the sform
# whenever it has a code. SimpleITK 2.5.7 (ITK) takes it where its code is 1 (scanner) or it is
# alone; of code 2 to 4 (aligned, Talairach, MNI), as registrations leave it beside the scanner's
# qform, SimpleITK takes the qform: one file, two places, centimetres apart. At code 1, too, a
# sheared sform, as of a gantry tilt, is dropped for the qform, which cannot shear; without one it
# is refused. With no code at all nibabel puts the middle of the volume at 0, SimpleITK its first
# voxel. All without a warning.
# For scans and masks that pass between programs on ITK and on nibabel: shifted against each other.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6

"$folder/venv/bin/python" - "$folder" 2>"$folder/warnings" <<'PYTHON' ||
import math
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

print(", ".join(f"{name} {version(name)}" for name in ("SimpleITK", "nibabel", "numpy")))
path = Path(sys.argv[1], "volume.nii")
SHAPE = (64, 64, 80)
LAST = (0, 0, SHAPE[2] - 1)


def placed(matrix, corner):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, corner
    return affine


def by_nibabel(index):
    """Where a voxel lies, in mm to the right, front and head."""
    affine = nibabel.load(path).affine
    return nibabel.affines.apply_affine(affine, index)


def by_sitk(index):
    image = sitk.ReadImage(str(path))
    # To the left, back and head in ITK.
    return np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)


def text(place):
    return f"({', '.join(f'{mm:.1f}' for mm in place)})"


scanner = placed(np.diag([3, 3, 2.5]), (-96, -96, -300))
# After a registration: turned by 8 degrees, moved by 40 mm.
turn = math.radians(8)
turned = [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]]
moved = placed(np.array(turned) @ np.diag([3, 3, 2.5]), (-80, -110, -260))
# Slices along the table, leaning by 15 degrees: each lies further to the front.
tilted = scanner.copy()
tilted[1, 2] = 2.5 * math.tan(math.radians(15))

held = True
volume = np.zeros(SHAPE, np.int16)
for name, sform, q_code, s_code, right in (
    ("both the same", scanner, 1, 1, True),
    ("a registration in the sform, scanner", moved, 1, 1, True),
    ("a registration in the sform, aligned", moved, 1, 2, False),
    ("a registration in the sform, MNI", moved, 1, 4, False),
    ("the same alone", moved, 0, 4, True),
    ("a gantry tilt in the sform", tilted, 1, 1, False),
    ("that gantry tilt alone", tilted, 0, 1, None),
    ("neither", scanner, 0, 0, False),
):
    image = nibabel.Nifti1Image(volume, scanner)
    # The nearest that a qform can say of the tilt, else where the scanner put it.
    image.set_qform(tilted if sform is tilted else scanner, q_code)
    image.set_sform(sform, s_code)
    nibabel.save(image, path)
    print(f"\n{name}: codes {q_code} and {s_code}; a voxel of the last slice, in mm")
    expected = by_nibabel(LAST)
    print(f"  expected: {text(expected)}, as by nibabel")
    try:
        seen = by_sitk(LAST)
    except RuntimeError as error:
        print(f"  seen:     {str(error).strip().splitlines()[-1]}")
        held &= right is None and "orthonormal" in str(error)
        continue
    away = float(np.linalg.norm(seen - expected))
    print(f"  seen:     {text(seen)}, {away:.1f} mm away")
    held &= right is not None and (away < 0.01 if right else away > 20)
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
    {
        cat "$folder/warnings" >&2
        exit 1
    }

warnings=$(wc -l <"$folder/warnings")
echo "lines of warning: $warnings"
cat "$folder/warnings"
[ "$warnings" = 0 ]
