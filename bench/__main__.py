"""Runs the benchmarks and writes bench/results.md and bench/results.svg."""

import argparse
import datetime
import functools
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

from bench import PROJECT, builds, data, overhead, peers, quality, scale, stages, tables
from bench.race import ROUNDS

#: Slices of the phantom in 512 × 512 files: enough for starting processes not to count.
SLICES = 5120

PARTS = ("stages", "quality", "overhead", "scale", "builds", "peers")


def main() -> None:
    """Measures what the command line names, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without one")
    parser.add_argument("--folder", help="for what is made, some 18 GB; without one the system's")
    parser.add_argument(
        "--small", action="store_true", help="a twentieth of RSNA's features; writes nothing"
    )
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier build, for builds")
    parser.add_argument(
        "--bundle",
        type=Path,
        default=PROJECT / "demo/results/models/clotline.zip",
        help="models that builds applies; without it the demo's",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    lacking = _lacking(arguments)
    if asked := [part for part in arguments.parts if part in lacking]:
        parser.error("; ".join(f"{part} needs {lacking[part]}" for part in asked))
    for part, what in lacking.items() if not arguments.parts else ():
        print(f"without {part}, which needs {what}", flush=True)
    parts = arguments.parts or [part for part in PARTS if part not in lacking]
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="clotline-bench-") as folder:
        cohort = functools.cache(lambda: data.make_cohort(Path(folder, "cohort"), SLICES))
        for part in parts:
            texts = _measure(part, cohort, Path(folder).resolve(), arguments)
            if not arguments.small:
                _write(part, texts)


def _lacking(arguments: argparse.Namespace) -> dict[str, str]:
    """Part to what it needs and does not have."""
    real = "CLOTLINE_REALCT: a folder of CT in the competition's layout"
    lacking = {} if os.environ.get("CLOTLINE_REALCT") else {"builds": real, "peers": real}
    if arguments.earlier is None:
        lacking["builds"] = "--earlier: the checkout of an earlier build (bench/README.md)"
    elif not builds.Build.at(arguments.earlier).python.exists():
        lacking["builds"] = f"make .venv/installed in {arguments.earlier}"
    elif not arguments.bundle.exists():
        lacking["builds"] = f"{arguments.bundle}, which make demo makes"
    return lacking


def _write(part: str, texts: list[str]) -> None:
    """Puts a part's tables into bench/results.md in place of its earlier ones."""
    path, sections = PROJECT / "bench/results.md", dict.fromkeys(PARTS, "")
    if path.exists():
        _, *found = re.split(r"<!-- (\w+) -->\n", path.read_text(encoding="utf-8"))
        sections |= zip(found[::2], found[1::2], strict=True)
    head = f"Measured by `python -m bench {part}` on {datetime.date.today():%Y-%m-%d}: "
    sections[part] = head + tables.describe_machine() + ".\n\n" + "\n".join(texts)
    kept = (f"<!-- {name} -->\n{text.strip()}\n" for name, text in sections.items() if text)
    path.write_text("# Benchmarks\n\n" + "\n".join(kept), encoding="utf-8")
    print(f"\nwritten to {path}", flush=True)


def _measure(part: str, cohort, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Runs one part; prints and gives its tables."""
    texts: list[str] = []
    full_size, rounds = not arguments.small, 1 if arguments.small else ROUNDS
    realct = os.environ.get("CLOTLINE_REALCT") and Path(os.environ["CLOTLINE_REALCT"]).resolve()

    def show(text: str) -> None:
        print("\n" + text, flush=True)
        texts.append(text)

    def place(name: str) -> Path:
        path = folder / name
        path.mkdir()
        return path

    if part == "stages":
        rows = []
        real = data.real_cohort(realct, place("realct")) if realct else None
        for row in stages.all_stages(cohort(), real):
            print(f"{row.stage}: {row.ratio:.1f} × the published way", flush=True)
            rows.append(row)
        show(tables.stages_table(rows, stages.without_bfloat16(cohort())))
        tables.plot(rows, PROJECT / "bench/results.svg")
        texts.append("![Speed against the published way](results.svg)\n")
        show(tables.sizes_table(list(stages.all_sizes(cohort(), real))))
    elif part == "quality":
        show(tables.quality_table(quality.all_checks(PROJECT / "demo")))
    elif part == "overhead":
        whole_set = place("overhead")
        costs = [*overhead.dry_run(whole_set), *overhead.job_starts(whole_set)]
        show(tables.cost_table([*costs, *overhead.evaluation()]))
    elif part == "builds":
        earlier, bundle = builds.Build.at(arguments.earlier), arguments.bundle.resolve()
        show(f"The earlier build is {earlier.commit}.")
        compared = builds.all_comparisons(
            realct, bundle, place("builds"), earlier, rounds, full_size
        )
        for title, ratios, costs, went in compared:
            show(tables.ratios_table(title, ratios, rounds))
            if costs:
                show(tables.cost_table(costs, f"{title}, of its own"))
            if went:
                show("Seconds of the last round:\n\n" + "".join(f"- {line}\n" for line in went))
    elif part == "peers":
        found = list(peers.all_peers(realct, place("peers"), rounds))
        show(tables.ratios_table("Beside other readers", found, rounds))
    else:
        show(tables.memory_table(scale.memory(cohort(), place("memory"), full_size)))
        show(tables.growth_table(scale.growth(cohort(), place("growth"))))
        show(tables.parallel_table(scale.parallel(cohort(), place("parallel"))))
    return texts


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    main()
