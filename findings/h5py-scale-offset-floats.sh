#!/usr/bin/env bash
# h5py 3.16.0 documents scaleoffset=n of floats as n digits kept after the point, and not-a-number
# as not kept. What HDF5 2.0.0 does besides: a chunk whose first value is not a number cannot be
# read again, whatever else is in it, though it was written without an error and reads right until
# the file is closed; elsewhere in a chunk not-a-number becomes the chunk's smallest value. And all
# within one unit of the fill value, 0 unless another is given, is taken for it: the error is twice
# that of rounding, and of probabilities with two digits a quarter can come back as 0. A fill value
# out of their range (-1) heals that.
# For maps with nothing outside the circle of the scan, whose chunks in the corners are lost, and
# for scores: those below 0.01 no longer differ.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check h5py==3.16.0 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/values.h5" <<'PYTHON'
import sys

import h5py
import numpy as np

print(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, numpy {np.__version__}")
path = sys.argv[1]


def write(values, chunks, **options):
    """Whether the values are read right while the file is still open."""
    with h5py.File(path, "w") as h5:
        stored = h5.create_dataset("values", data=values, chunks=chunks, **options)
        return np.array_equal(stored[:], values, equal_nan=True)


def read(values):
    """Pairs of each chunk's values and those that come back, or None."""
    with h5py.File(path, "r") as h5:
        for place in h5["values"].iter_chunks():
            try:
                yield values[place], h5["values"][place]
            except OSError as error:
                assert "filter returned failure" in str(error)
                yield values[place], None


# A body of water in air, with noise; not a number outside the circle that the scanner sees.
rng = np.random.default_rng(0)
_, y, x = np.mgrid[:8, :128, :128]
hu = -1000 + 1040 * ((x - 64) ** 2 + (y - 64) ** 2 < 50**2) + rng.normal(0, 20, x.shape)
hu = np.where((x - 63.5) ** 2 + (y - 63.5) ** 2 > 64**2, np.nan, hu).astype(np.float32)

before = write(hu, (8, 32, 32), scaleoffset=1)
parts = list(read(hu))
lost = [values for values, found in parts if found is None]
in_lost = sum(int(np.isfinite(values).sum()) for values in lost)
kept = [pair for pair in parts if pair[1] is not None]
others = [(values, found) for values, found in kept if np.isnan(values).any()]
smallest = all(
    (found[np.isnan(values)] == np.nanmin(values)).all() for values, found in others
)
print("\nHU with not-a-number in the corners, scaleoffset=1, in chunks of 8 x 32 x 32")
print(f"  read from the file still open: {'as written' if before else 'otherwise'}")
print("  expected: all that are numbers, to a digit after the point")
print(f"  seen:     {len(lost)} of {len(parts)} chunks cannot be read, with {in_lost:,} numbers;")
print(f"            in {len(others)} more not-a-number is the smallest value: {smallest}")
held = before and smallest and len(others) > 2
held &= len(lost) > 3 and all(np.isnan(values.flat[0]) for values in lost)
held &= not any(np.isnan(values.flat[0]) for values, _ in kept)

scores = rng.beta(0.5, 5, (64, 64)).astype(np.float32)
print("\nprobabilities, scaleoffset=2, and the largest error")
for options, stated in (({}, 0.01), ({"fillvalue": -1}, 0.005)):
    write(scores, scores.shape, scaleoffset=2, **options)
    ((_, found),) = read(scores)
    error = float(np.abs(found - scores).max())
    print(f"  expected: 0.0050\n  seen:     {error:.4f}; {(found == 0).mean():.0%} are 0", end="")
    print(f"; with {options}" if options else "")
    held &= 0.95 * stated < error < 1.01 * stated
    held &= (found[scores < 0.0099] == 0).all() if not options else (found > 0).all()
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
