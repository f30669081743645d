"""Draws the README's figures from a finished run: ``make figures``."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright

from clotline.data.shards import open_shard
from clotline.data.tables import read_table
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID
from clotline.reporting.plots import save_figure
from clotline.titles import TITLES


def rule_graph(dot: str) -> nx.DiGraph:
    """The graph that ``snakemake --rulegraph`` prints, rule names as nodes."""
    names = dict(re.findall(r'(\d+)\[label = "([^"\\]+)', dot))
    graph = nx.DiGraph()
    graph.add_edges_from((names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", dot))
    # What follows from other edges only blurs the picture.
    graph.remove_node("all")
    return nx.transitive_reduction(graph)


def draw_rule_graph(graph: nx.DiGraph) -> Figure:
    """Rules from left to right, each behind all that it needs."""
    for layer, rules in enumerate(nx.topological_generations(graph)):
        for rule in rules:
            graph.nodes[rule]["layer"] = layer
    layout = nx.multipartite_layout(graph, subset_key="layer")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.axis("off")
    nx.draw_networkx_edges(graph, layout, ax=axis, edge_color="0.55", node_size=2200, arrowsize=9)
    for rule, (x, y) in layout.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#e8f1f8", "edgecolor": "#0072B2"}
        label = rule.replace("_", "\n", 1)
        axis.text(x, y, label, ha="center", va="center", fontsize=8, bbox=box)
    return figure


def draw_phantom(results: Path) -> Figure:
    """The positive slice that shows most contrast, with its labels, beside a negative one."""
    slices = read_table(results / "data/slices.parquet")
    plan = read_table(results / "data/plan.parquet").set_index(STUDY_UID)
    figure = Figure(figsize=(9, 4.9), layout="constrained")
    for axis, label in zip(figure.subplots(1, 2), (1, 0), strict=True):
        rows = slices[(slices[IMAGE_LABEL] == label) & (slices["split"] == "test")]
        row, pixels = max(
            ((row, read_pixels(results, row)) for row in rows.iloc[::7].itertuples()),
            key=lambda pair: np.count_nonzero((pair[1] > 200) & (pair[1] < 450)),
        )
        axis.imshow(np.clip(pixels, -250, 450), cmap="gray", vmin=-250, vmax=450)
        axis.axis("off")
        study = plan.loc[getattr(row, STUDY_UID)]
        labels = [TITLES.get(name, name) for name in STUDY_LABELS if study[name]]
        axis.set_title(f"{IMAGE_LABEL} = {label}\nstudy: {', '.join(labels).lower()}", fontsize=9)
    figure.supxlabel("level 100 HU, width 700 HU", fontsize=8)
    return figure


def read_pixels(results: Path, row) -> np.ndarray:
    """(256, 256) int16 HU of one row of slices.parquet."""
    with open_shard(results / f"data/shards/shard-{row.shard}.h5") as file:
        return file["pixels"][row.row]


def photograph_viewer(index: Path, target: Path) -> None:
    """The viewer as it opens."""
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(index.resolve().as_uri())
        page.wait_for_selector("#image[data-drawn]")
        page.screenshot(path=target)
        browser.close()


def main(folder: Path, target: Path) -> None:
    """Writes rulegraph.svg, phantom.png, roc.png and viewer.png.

    Args:
        folder: working directory of a finished run.
        target: folder for the figures.
    """
    command = ["snakemake", "--directory", str(folder), "--rulegraph", "--forceall", "all"]
    dot = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    save_figure(draw_rule_graph(rule_graph(dot)), target / "rulegraph.svg")
    save_figure(draw_phantom(folder / "results"), target / "phantom.png", dpi=110)
    shutil.copy(folder / "results/roc/all.png", target / "roc.png")
    photograph_viewer(folder / "results/viewer/index.html", target / "viewer.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
