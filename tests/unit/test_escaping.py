"""What comes from outside is text in every output: never markup, a formula or a path."""

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest

from clotline.errors import ClotlineError
from clotline.reporting.plots import plot_history, save_figure
from clotline.workflow.config import load_config

PROJECT = Path(__file__).parents[2]
HOSTILE = "<script>alert(1)</script>\"'&amp;"


def test_a_figure_shows_hostile_text_as_text(tmp_path):
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "train_loss": [1, 0.5],
            "valid_loss": [1, 0.6],
            "valid_auroc": [0.5, 0.6],
            "kept": [0, 1],
        }
    )
    save_figure(plot_history(history, HOSTILE), tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert HOSTILE in ["".join(element.itertext()) for element in root.iter()]


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A1", "+a", "-a", "@a", "a<b", "../a", "a/b", "A"]
)
@pytest.mark.parametrize("section", ["cnn", "lstm", "evaluation"])
def test_a_name_that_is_a_formula_markup_or_a_path_is_refused(section, name):
    entries = {
        "cnn": {"cnn": {name: {"library": "torchvision", "architecture": "resnet18"}}},
        "lstm": {"lstm": {f"{name}-study": {}}},
        "evaluation": {"evaluation": {"external": {f"{name}-study": "a.csv"}}},
    }
    with pytest.raises(ClotlineError, match="is no known key"):
        load_config(entries[section])


def test_every_template_escapes_what_it_is_given():
    found = 0
    for path in sorted((PROJECT / "workflow").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).split(".")[-1] == "Environment"
            ):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("autoescape") == "True", f"{path}: line {node.lineno}"
                found += 1
    assert found
    for path in (PROJECT / "workflow/report").rglob("*.j2"):
        assert not re.search(r"\|\s*safe\b|autoescape false", path.read_text()), path
