#!/usr/bin/env bash
# picai_eval 1.4.13 drops the last point of its FROC curve: it takes the lowest confidence for the 0
# that stands for missed lesions. Where no lesion was missed there is no such 0, and the lowest real
# confidence goes, with all lesions found at it. Binary masks have but one: a detector that finds all
# ten lesions without a false positive gets sensitivity 0 at any rate of false positives, next to
# AUROC 1 and AP 1; let it miss one and it gets 0.9. Thresholds are also kept from the first look at a
# curve: a subset without misses has sensitivity 0, or 1 if the curve of all scans was read before.
# For FROC of good detectors, small test sets and subsets: the better one can get the lower curve.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    picai_eval==1.4.13 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from picai_eval import evaluate

print(", ".join(f"{name} {version(name)}" for name in ("picai_eval", "numpy", "scipy")))
RATE = 1  # false positives per scan allowed


def volume(confidences):
    """Blocks apart from each other, one per confidence."""
    array = np.zeros((8, 24, 24), np.float32)
    for place, confidence in enumerate(confidences):
        array[2:5, 4 * place + 1 : 4 * place + 3, 4:8] = confidence
    return array


def evaluated(detected):
    """One lesion in each of the first ten scans of twenty; detected has confidences per scan."""
    truth = [[1]] * 10 + [[]] * 10
    assert len(detected) == len(truth)
    volumes = [[volume(scan) for scan in scans] for scans in (detected, truth)]
    return evaluate(*volumes, num_parallel_calls=1)


def by_hand(metrics):
    """The greatest share of lesions found with at most RATE false positives per scan."""
    scans = metrics.subject_list
    found = [lesion for scan in scans for lesion in metrics.lesion_results[scan]]
    lesions = sum(lesion[0] for lesion in found)
    best = 0.0
    for threshold in {lesion[1] for lesion in found if lesion[1] > 0}:
        hits = [lesion[0] for lesion in found if lesion[1] >= threshold]
        if hits.count(0) <= RATE * len(scans):
            best = max(best, hits.count(1) / lesions)
    return best


def seen(metrics):
    return round(float(metrics.lesion_TPR_at_FPR(RATE)), 3)


def show(text, metrics):
    pair = by_hand(metrics), seen(metrics)
    print(f"\n{text}\n  AUROC {metrics.auroc:.2f}, AP {metrics.AP:.2f}")
    print(f"  expected: sensitivity {pair[0]}\n  seen:     sensitivity {pair[1]}")
    return pair


clear = [[]] * 10
graded = [[0.9]] * 6 + [[0.6]] * 4
pairs = [
    show("binary masks, all ten found", evaluated([[1]] * 10 + clear)),
    show("binary masks, nine found", evaluated([[1]] * 9 + [[]] + clear)),
    show("six found at 0.9, four at 0.6", evaluated(graded + clear)),
    show("six found at 0.9, three at 0.6", evaluated([*graded[:9], [], *clear])),
]

# As the README of picai_eval tells for subsets; the missed lesion is in scan 9.
subset = [scan for scan in range(20) if scan != 9]
metrics = evaluated([[1]] * 9 + [[]] + clear)
metrics.subject_list = subset
pairs.append(show("nine found, the scan of the tenth left out", metrics))
metrics = evaluated([[1]] * 9 + [[]] + clear)
assert metrics.lesion_TPR.max() < 1
metrics.subject_list = subset
pairs.append(show("the same, after a look at the curve of all scans", metrics))

held = pairs == [(1, 0), (0.9, 0.9), (1, 0.6), (0.9, 0.9), (1, 0), (1, 1)]
print("\nas stated" if held else "\nno longer as stated")
sys.exit(not held)
PYTHON
