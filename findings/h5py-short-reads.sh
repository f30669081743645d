#!/usr/bin/env bash
# h5py 3.16.0 (HDF5 2.0.0) asks a Python file object for each block once. A raw stream may return
# fewer bytes than asked for, by Python's own contract (io.RawIOBase.readinto); h5py takes the rest
# of its buffer for data. Uncompressed values are wrong without an error; compressed chunks are told
# as a failing filter. Linux returns at most 2,147,479,552 bytes a read, so that even
# open(path, "rb", buffering=0) ends a larger array in zeros. io.BufferedReader around it heals both.
# For volumes read over a network, or larger than 2 GiB, as file objects: wrong voxels, no message.
# Takes 2.2 GB of memory for some seconds; the large file is sparse.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check h5py==3.16.0 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/large.h5" <<'PYTHON'
import io
import sys

import h5py
import numpy as np

print(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, numpy {np.__version__}")


class Remote(io.RawIOBase):
    """A raw stream that gives 64 KiB at a time, as network streams do."""

    def __init__(self, data):
        self._bytes = io.BytesIO(data)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self._bytes.seek(offset, whence)

    def tell(self):
        return self._bytes.tell()

    def readinto(self, buffer):
        return self._bytes.readinto(memoryview(buffer)[:65536])


volume = np.arange(1, 512 * 512 + 1, dtype="i4").reshape(512, 512)
file = io.BytesIO()
with h5py.File(file, "w") as h5:
    h5["contiguous"] = volume
    h5.create_dataset("gzip", data=volume, chunks=volume.shape, compression="gzip")
data = file.getvalue()


def outcome(stream, name):
    with h5py.File(stream, "r") as h5:
        try:
            wrong = np.count_nonzero(h5[name][:] != volume)
        except OSError as error:
            return str(error)
    return f"{wrong / volume.size:.0%} of values wrong, no error" if wrong else "right"


seen = {}
for name in ("contiguous", "gzip"):
    print(f"\n{name}, 64 KiB a read\n  expected: right, as io.RawIOBase allows fewer bytes")
    seen[name] = outcome(Remote(data), name)
    seen[f"{name} buffered"] = outcome(io.BufferedReader(Remote(data)), name)
    print(f"  seen:     {seen[name]}; within io.BufferedReader {seen[f'{name} buffered']}")

path = sys.argv[1]
with h5py.File(path, "w") as h5:
    large = h5.create_dataset("large", shape=2**31 + 4096, dtype="u1")
    large[-1] = 7
with open(path, "rb", buffering=0) as raw, h5py.File(raw, "r") as h5:
    last = int(h5["large"][:][-1])
print("\nopen(path, 'rb', buffering=0), 2 GiB and 4,096 bytes whose last value is 7")
print(f"  expected: 7\n  seen:     {last}")

held = (
    seen["contiguous"].endswith("wrong, no error")
    and "filter returned failure" in seen["gzip"]
    and seen["contiguous buffered"] == seen["gzip buffered"] == "right"
    and last != 7
)
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
