"""How often 95% intervals of an AUROC, and of a difference, hold the truth: bench/coverage.md.

Samples are drawn from distributions whose AUROC is known; an interval covers where it holds it.
"""

import argparse
import datetime
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from bench import PROJECT
from clotline.evaluation.delong import auroc_delong, paired_delong, structural_components
from clotline.evaluation.intervals import TAILS, Cases, Z, resample
from clotline.evaluation.ranking import Ranking

#: Positives and negatives in a sample.
SIZES = ((5, 200), (8, 200), (20, 200), (50, 200), (10, 50), (20, 20), (200, 20))

AUROCS = (0.7, 0.85, 0.95, 0.98)

#: Two models' AUROC, and the correlation of their scores within a class.
PAIRS = ((0.95, 0.95), (0.95, 0.88), (0.85, 0.80), (0.75, 0.75), (0.90, 0.70))
CORRELATIONS = (0.4, 0.8)

#: Standard deviation of positives' scores where those of negatives have 1.
SPREADS = {"equal spread": 1.0, "positives spread more": 1.5}

#: AUROC of large and of small emboli, of which positives are a mixture.
EASY, HARD = 0.99, 0.60

#: Sizes, samples and resamples of the percentile bootstrap, which takes longest.
BOOTSTRAPPED_SIZES, BOOTSTRAPPED, RESAMPLES = ((8, 200), (20, 200)), 400, 400


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth, in one setting.

    Attributes:
        setting: of the samples.
        method: of the interval.
        covered: share of samples.
        width: mean width.
    """

    setting: tuple
    method: str
    covered: float
    width: float


def draw_scores(kind: str, auroc: float, sizes: tuple[int, int], rng) -> tuple:
    """Scores of positives and negatives whose true AUROC is ``auroc``, on the logit scale."""
    positives, negatives = sizes
    if kind in SPREADS:
        spread = SPREADS[kind]
        shift = norm.ppf(auroc) * np.hypot(1, spread)
        return rng.normal(shift, spread, positives), rng.normal(size=negatives)
    large = rng.random(positives) < (auroc - HARD) / (EASY - HARD)
    shift = norm.ppf(np.where(large, EASY, HARD)) * np.sqrt(2)
    return shift + rng.normal(size=positives), rng.normal(size=negatives)


def draw_pair(spread: float, aurocs, correlation: float, sizes: tuple[int, int], rng) -> tuple:
    """Correlated scores of two models: (positives, 2) and (negatives, 2)."""
    root = np.linalg.cholesky([[1, correlation], [correlation, 1]])
    positives, negatives = (rng.normal(size=(n, 2)) @ root.T for n in sizes)
    return positives * spread + norm.ppf(aurocs) * np.hypot(1, spread), negatives


def as_cases(positives: np.ndarray, negatives: np.ndarray) -> Cases:
    """Cases of scores on the logit scale."""
    truth = np.repeat([1, 0], [len(positives), len(negatives)])
    return Cases.of(truth, expit(np.concatenate([positives, negatives])))


def plain_delong(cases: Cases) -> tuple[float, float]:
    """DeLong's own interval: the AUROC and 1.96 standard errors on either side."""
    value, error = _with_error(cases)
    return value - Z * error, value + Z * error


def logit_delong(cases: Cases) -> tuple[float, float]:
    """DeLong's interval made on the logit scale; none, so no cover, at an AUROC of 1."""
    value, error = _with_error(cases)
    if value == 1:
        return 1.0, 1.0
    half = Z * error / (value * (1 - value))
    return expit(logit(value) - half), expit(logit(value) + half)


def _with_error(cases: Cases) -> tuple[float, float]:
    parts = structural_components(cases.truth, cases.score)
    return parts[0].mean(), np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))


def percentile_bootstrap(cases: Cases) -> tuple[float, float]:
    """The quantiles of resamples of the studies."""
    drawn = resample(Ranking(cases).metrics, cases.studies, RESAMPLES, 0)[:, 0]
    return tuple(np.nanquantile(drawn, TAILS))


def ours(cases: Cases) -> tuple[float, float]:
    """What Clotline reports."""
    estimate = auroc_delong(cases)
    return estimate.low, estimate.high


SINGLE = {
    "DeLong": plain_delong,
    "DeLong, logit": logit_delong,
    "percentile bootstrap": percentile_bootstrap,
    "Clotline": ours,
}


def single(samples: int, seed: int = 0):
    """Coverage of the intervals of one AUROC."""
    kinds = (*SPREADS, "large and small emboli")
    for sizes in SIZES:
        for kind in kinds:
            for auroc in AUROCS:
                rng = np.random.default_rng((seed, *sizes, kinds.index(kind), round(100 * auroc)))
                drawn = [as_cases(*draw_scores(kind, auroc, sizes, rng)) for _ in range(samples)]
                for method, interval in SINGLE.items():
                    used = drawn
                    if interval is percentile_bootstrap:
                        if sizes not in BOOTSTRAPPED_SIZES or auroc != 0.95:
                            continue
                        used = drawn[:BOOTSTRAPPED]
                    ends = np.array([interval(cases) for cases in used])
                    yield _covered((*sizes, kind, auroc), method, ends, auroc)


def paired(samples: int, seed: int = 0):
    """Coverage of the intervals of a difference."""
    for sizes in SIZES:
        for kind, spread in SPREADS.items():
            for aurocs in PAIRS:
                for correlation in CORRELATIONS:
                    numbers = [round(100 * v) for v in (*aurocs, correlation, spread)]
                    rng = np.random.default_rng((seed, *sizes, *numbers))
                    plain, mended = [], []
                    for _ in range(samples):
                        scores = draw_pair(spread, aurocs, correlation, sizes, rng)
                        both = [as_cases(*(part[:, k] for part in scores)) for k in (0, 1)]
                        plain.append(plain_paired_delong(*both))
                        estimate, _ = paired_delong(*both)
                        alike = (estimate.value, estimate.value)
                        found = (estimate.low, estimate.high)
                        mended.append(alike if estimate.low is None else found)
                    setting = (*sizes, kind, *aurocs, correlation)
                    truth = aurocs[0] - aurocs[1]
                    yield _covered(setting, "DeLong", np.array(plain), truth)
                    yield _covered(setting, "Clotline", np.array(mended), truth)


def plain_paired_delong(first: Cases, second: Cases) -> tuple[float, float]:
    """DeLong's own interval of a difference."""
    both = [structural_components(cases.truth, cases.score) for cases in (first, second)]
    parts = [a - b for a, b in zip(*both, strict=True)]
    half = Z * np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
    return parts[0].mean() - half, parts[0].mean() + half


def _covered(setting: tuple, method: str, ends: np.ndarray, truth: float) -> Coverage:
    held = (ends[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= ends[:, 1])
    width = np.diff(np.clip(ends, -1, 1)).mean()
    return Coverage(setting, method, float(held.mean()), float(width))


def summary(found: list[Coverage]) -> str:
    """Markdown table: each method's coverage over the settings, by size of the smaller class."""
    lines = [
        "| method | smaller class | settings | least | mean | most | within 93–97% | below 93% |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups = {"5 and 8": (5, 8), "10 and 20": (10, 20), "50": (50,)}
    for method in dict.fromkeys(c.method for c in found):
        for name, fewest in groups.items():
            share = np.array(
                [c.covered for c in found if c.method == method and min(c.setting[:2]) in fewest]
            )
            if not len(share):
                continue
            within = np.mean((share >= 0.93) & (share <= 0.97))
            lines.append(
                f"| {method} | {name} | {len(share)} | {share.min():.1%} | {share.mean():.1%} | "
                f"{share.max():.1%} | {within:.0%} | {np.mean(share < 0.93):.0%} |"
            )
    return "\n".join(lines)


def detail(found: list[Coverage], names: tuple[str, ...]) -> str:
    """Markdown table: coverage and mean width of every setting."""
    methods = list(dict.fromkeys(c.method for c in found))
    lines = [
        f"| {' | '.join((*names, *methods))} |",
        f"|{' --- |' * len(names)}{' ---: |' * len(methods)}",
    ]
    for setting in dict.fromkeys(c.setting for c in found):
        row = {c.method: f"{c.covered:.1%} ({c.width:.2f})" for c in found if c.setting == setting}
        cells = (*map(str, setting), *(row.get(method, "") for method in methods))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(samples: int) -> str:
    """The page."""
    one, two = list(single(samples)), list(paired(samples))
    names = ("positives", "negatives", "scores")
    return f"""# Coverage of 95% intervals of an AUROC

Simulated by `python -m bench.coverage` on {datetime.date.today():%Y-%m-%d}: {samples:,} samples a
setting, so that a share of 95% has a standard error of {np.sqrt(0.95 * 0.05 / samples):.1%}. Scores
are normal, with the same standard deviation in both classes or 1.5 times as large for positives, or
positives are a mixture of large emboli (AUROC {EASY}) and small ones (AUROC {HARD:.2f}), as real
ones are. The percentile bootstrap, which takes longest, is seen with 8 and 20 positives and an
AUROC of 0.95, in {min(BOOTSTRAPPED, samples):,} samples each.

## One AUROC

{summary(one)}

## Difference of two models on the same studies

{summary(two)}

## Each setting

Coverage, and the mean width in brackets.

{detail(one, (*names, "AUROC"))}

{detail(two, (*names, "first", "second", "correlation"))}
"""


def main() -> None:
    """Simulates and writes bench/coverage.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__)
    parser.add_argument("--samples", type=int, default=1000, help="samples of each setting")
    text = report(parser.parse_args().samples)
    path = PROJECT / "bench/coverage.md"
    path.write_text(text, encoding="utf-8")
    print(text[: text.index("## Each setting")] + f"written to {path}")


if __name__ == "__main__":
    main()
