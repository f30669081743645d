"""The benchmarks' results as Markdown and as a plot."""

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import psutil

from bench.overhead import Cost
from bench.quality import Check
from bench.race import ROUNDS, Ratio, Row, Size
from bench.scale import Growth, Memory, Parallel

matplotlib.use("Agg")
# Text stays text, and the file the same whenever it is drawn.
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "clotline"}
from matplotlib import pyplot as plt  # noqa: E402

#: The most that an exponent of cost over size may be, and the least that two processes must do.
EXPONENT, SPEEDUP = 1.05, 1.7


def describe_machine() -> str:
    """This machine, as far as it matters for speeds."""
    name = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    import torch

    bf16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores of {name} ({'with' if bf16 else 'without'} bfloat16 units), "
        f"{memory:.0f} GiB, Python {platform.python_version()}, torch {torch.__version__}"
    )


def markdown(head: list[str], lines: Iterable[Iterable[str]]) -> str:
    """A table of cells that are text already."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _mark(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _aim(ratio: float, reach: float | None) -> tuple[str, str]:
    """What is to be reached, and whether it is; empty where nothing is."""
    return (f"{reach:g}×", _mark(ratio >= reach)) if reach else ("", "")


def stages_table(rows: list[Row], without: Mapping[str, Row]) -> str:
    """Every stage against the published way and its limit.

    Args:
        rows: of the stages.
        without: stage to its row on a processor without bfloat16 units, where that differs.
    """
    head = ["stage", "ours", "published way", "ratio", "to reach", "reached"]
    head += ["without bfloat16", "limit", "share of the limit", "remarks"]
    return (
        f"## Against the published way\n\nMedians of {ROUNDS} rounds in which all take turns. "
        "Without bfloat16: ours and its ratio, oneDNN and torch held to AVX2.\n\n"
    ) + markdown(
        head,
        (
            [
                row.stage,
                f"{_rate(row.ours)} {row.unit}",
                _rate(row.published),
                f"{row.ratio:.1f}×",
                *_aim(row.ratio, row.reach),
                _without(without.get(row.stage)),
                f"{row.limit}: {_rate(row.limit_rate)}",
                f"{row.of_limit:.0%}",
                row.note,
            ]
            for row in rows
        ),
    )


def _without(row: Row | None) -> str:
    return f"{_rate(row.ours)} {row.unit}, {row.ratio:.1f}×" if row else ""


def sizes_table(found: list[Size]) -> str:
    """What slices take on the disk."""
    title = "## Bytes on the disk\n\nA slice's share of the whole file; shards are lossless.\n\n"
    return title + markdown(
        ["slices of", "ours", "published way", "smaller", "to reach", "reached"],
        (
            [
                size.data,
                f"{size.ours_kb:.1f} KB a slice",
                f"{size.published_kb:.1f}",
                f"{size.published_kb / size.ours_kb:.2f}×",
                *_aim(size.published_kb / size.ours_kb, size.reach),
            ]
            for size in found
        ),
    )


def quality_table(checks: list[Check]) -> str:
    """What is faster is as good."""
    return "## As good\n\n" + markdown(
        ["against", "result", "holds"],
        ([check.what, check.found, _mark(check.holds)] for check in checks),
    )


def memory_table(found: list[Memory]) -> str:
    """The jobs' peak memory."""
    head = "## Memory\n\nAll processes of a job together, shared pages counted once.\n\n"
    return head + markdown(
        ["job", "peak", "to stay below", "kept", "took"],
        (
            [
                memory.job,
                f"{memory.peak_mb:,.0f} MB",
                f"{memory.reach_mb:,.0f} MB",
                _mark(memory.peak_mb <= memory.reach_mb),
                f"{memory.seconds:.0f} s",
            ]
            for memory in found
        ),
    )


def growth_table(found: list[Growth]) -> str:
    """Cost over size."""
    return "## Cost against size\n\n" + markdown(
        ["stage", "sizes", "seconds", f"exponent (at most {EXPONENT})", "kept"],
        (
            [
                growth.stage,
                f"{', '.join(f'{count:,}' for count in growth.counts)} {growth.unit}",
                ", ".join(f"{seconds:.2f}" for seconds in growth.seconds),
                f"{growth.exponent:.3f}",
                _mark(growth.exponent <= EXPONENT),
            ]
            for growth in found
        ),
    )


def parallel_table(found: list[Parallel]) -> str:
    """Two processes against one."""
    title = "## Two processes against one\n\nEach with a core of its own.\n\n"
    return title + markdown(
        ["stage", f"speed-up (at least {SPEEDUP})", "reached"],
        ([p.stage, f"{p.speedup:.2f}×", _mark(p.speedup >= SPEEDUP)] for p in found),
    )


def ratios_table(title: str, found: list[Ratio], rounds: int) -> str:
    """Ours beside other ways."""
    return f"## {title}\n\nMedians of {rounds} rounds in which all take turns.\n\n" + markdown(
        ["what", "ours", "beside", "its", "ratio", "to reach", "reached", "remarks"],
        (
            [
                row.what,
                f"{_rate(row.ours)} {row.unit}",
                row.beside,
                "refused" if row.theirs is None else _rate(row.theirs),
                "" if row.ratio is None else f"{row.ratio:.2f}×",
                "" if row.reach is None else f"{'≥' if row.reach >= 1 else '≤'} {row.reach:g}×",
                "" if row.reach is None else _mark(row.reached),
                row.note,
            ]
            for row in found
        ),
    )


def cost_table(found: list[Cost], title: str = "Beside the work") -> str:
    """What the workflow itself and evaluation cost."""
    return f"## {title}\n\n" + markdown(
        ["what", "cost", "at most", "kept", "remarks"],
        (
            [
                cost.what,
                f"{cost.value:.3g} {cost.unit}",
                f"{cost.reach:g} {cost.unit}",
                _mark(cost.value <= cost.reach),
                cost.note,
            ]
            for cost in found
        ),
    )


def plot(rows: list[Row], path: Path) -> None:
    """Each stage's ratio to the published way, its reach, and the limit's, on one logarithmic axis.

    Args:
        rows: of the stages.
        path: SVG to write.
    """
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.2), layout="constrained")
    places = np.arange(len(rows))[::-1]
    limits = [row.ratio / row.of_limit for row in rows]
    axes.barh(places, limits, 0.7, color="#d8dee6", label="limit of the machine")
    axes.barh(places, [row.ratio for row in rows], 0.4, color="#2b6cb0", label="Clotline")
    reach = [row.reach or np.nan for row in rows]
    axes.plot(reach, places, "|", color="#c05621", ms=16, mew=2, label="to be reached")
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.set_yticks(places, [row.stage for row in rows])
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.set_xlabel("speed, the published way = 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
