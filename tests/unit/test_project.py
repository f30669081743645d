"""Files that must agree with each other do."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from clotline.version import CLOTLINE_VERSION
from clotline.workflow import code_digest
from clotline.workflow.config import load_config
from tools.describe_config import config_readme

PROJECT = Path(__file__).parents[2]


def lock():
    text = (PROJECT / "requirements.lock").read_text()
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\]+)", text, re.MULTILINE))


def test_the_production_recipe_is_the_schemas_defaults():
    assert load_config(yaml.safe_load((PROJECT / "config/config.yaml").read_text())) == (
        load_config({})
    )


def test_the_demo_says_only_what_differs_from_the_defaults():
    demo = yaml.safe_load((PROJECT / "demo/config/config.yaml").read_text())
    defaults = load_config({})

    def same(given, default, path=""):
        for key, value in given.items():
            if isinstance(value, dict) and isinstance(default.get(key), dict):
                yield from same(value, default[key], f"{path}{key}.")
            elif isinstance(default, dict) and default.get(key, object()) == value:
                yield f"{path}{key}"

    assert list(same(demo, defaults)) == []
    load_config(demo)


def test_the_configurations_page_is_made_from_the_schema():
    assert (PROJECT / "config/README.md").read_text() == config_readme(), (
        "run python -m tools.describe_config"
    )


ENVIRONMENTS = sorted((PROJECT / "envs").glob("*.yaml"))


def pins_of(environment):
    (packages,) = (
        entry["pip"]
        for entry in yaml.safe_load(environment.read_text())["dependencies"]
        if isinstance(entry, dict)
    )
    return dict(package.split("==") for package in packages)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda p: p.stem)
def test_conda_environments_have_the_pins_of_the_lock_file(path):
    pins = pins_of(path)
    assert pins
    assert pins.items() <= lock().items()


def scripts_in(environment):
    """The scripts of all rules that run in a conda environment."""
    for path in (PROJECT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule \w+:", path.read_text(), flags=re.MULTILINE)[1:]:
            if f"envs/{environment.name}" in rule:
                yield re.search(r"scripts/(\w+\.py)", rule).group(1)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda p: p.stem)
def test_conda_environments_have_what_their_rules_import(path):
    scripts = list(scripts_in(path))
    assert scripts
    distributions = packages_distributions()
    pins = {name.lower() for name in pins_of(path)}
    for script in scripts:
        modules = {}
        code_digest._collect(code_digest.SCRIPTS / script, modules, ())
        imported = {
            name.split(".")[0] for module in modules for name in code_digest._read(module)[1]
        }
        for name in imported - set(sys.stdlib_module_names) - {code_digest.PACKAGE, ""}:
            known = {found.lower().replace("_", "-") for found in distributions[name]}
            assert known & pins, f"{script} imports {name}"


def test_the_lock_file_pins_every_package_by_hash():
    text = (PROJECT / "requirements.lock").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    assert len(lock()) > 50
    for block in blocks:
        if "==" in block:
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_the_snakefile_is_short_and_rules_are_thin():
    assert len((PROJECT / "Snakefile").read_text().splitlines()) <= 50
    assert len((PROJECT / "workflow/rules/common.smk").read_text().splitlines()) <= 150
    for path in (PROJECT / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        assert "lambda" not in text, path
        assert "run:" not in text, path


def test_every_rule_has_a_script_of_its_own_name():
    for path in (PROJECT / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        rules = re.findall(r"^ *rule (\w+):", text, re.MULTILINE)
        scripts = re.findall(r'"\.\./scripts/(\w+)\.py"', text)
        assert rules == scripts
        assert rules == re.findall(r'code_digest\("(\w+)\.py"', text)
        for script in scripts:
            assert (PROJECT / f"workflow/scripts/{script}.py").is_file()


def test_a_script_reads_what_its_rule_gives():
    for path in (PROJECT / "workflow/rules").glob("*.smk"):
        for block in re.split(r"^ *rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = block.partition(":")[0]
            script = (PROJECT / f"workflow/scripts/{name}.py").read_text()
            for wildcard in re.findall(r"snakemake\.wildcards\.(\w+)", script):
                assert f"{{{wildcard}}}" in block, f"{name} has no wildcard {wildcard}"
            for kind, key in re.findall(r"snakemake\.(input|output|params)\.(\w+)", script):
                assert re.search(rf"\b{key}=", block), f"{name} has no {kind} {key}"


def test_a_rule_that_takes_over_another_has_all_inputs_that_its_script_reads():
    found = 0
    for path in (PROJECT / "workflow/rules").glob("*.smk"):
        blocks = re.split(r"^ *(?:use )?rule ", path.read_text(), flags=re.MULTILINE)[1:]
        for taken, name, block in (
            (*match.groups(), block)
            for block in blocks
            if (match := re.match(r"(\w+) as (\w+) with:", block))
        ):
            script = PROJECT / f"workflow/scripts/{taken}.py"
            # Inputs are replaced as a whole, and params one by one.
            if not script.is_file() or "    input:" not in block:
                continue
            text = script.read_text()
            for key in re.findall(r"(?:snakemake\.input|inputs)\.(\w+)", text):
                found += 1
                assert re.search(rf"\b{key}=", block), f"{name} has no input {key}"
    assert found > 20


def run_python(code, folder):
    """Runs code in a process of its own, which must not fail."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SCRIPTS = PROJECT / "workflow/scripts"


def test_every_script_can_be_imported_without_snakemake():
    scripts = sorted(path.stem for path in SCRIPTS.glob("*.py"))
    code = f"import importlib\nfor name in {scripts!r}: importlib.import_module(name)"
    run_python(code, SCRIPTS)


#: Scripts that apply or train networks.
WITH_TORCH = {
    *("train_cnn", "extract_features", "activation", "train_lstm", "predict_lstm"),
    *("finetune", "apply_models", "weights"),
}


def test_only_scripts_that_have_networks_import_torch():
    """It takes 1.5 CPU seconds, several times as long as all else of most jobs."""
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert scripts > WITH_TORCH
    code = f"import importlib, sys\nfor name in {sorted(scripts - WITH_TORCH)!r}:\n"
    code += "    importlib.import_module(name)\n    assert 'torch' not in sys.modules, name"
    run_python(code, SCRIPTS)


def test_every_tool_can_be_imported():
    names = sorted(path.stem for path in (PROJECT / "tools").glob("*.py"))
    code = f"import importlib\nfor name in {names!r}: importlib.import_module('tools.' + name)"
    run_python(code, PROJECT)


def test_the_version_is_that_of_the_changelog_and_of_the_citation():
    changes = re.findall(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changes[0] == CLOTLINE_VERSION
    assert len(set(changes)) == len(changes)
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["version"] == CLOTLINE_VERSION
    data_set = citation["references"][0]
    assert data_set["doi"] == "10.1148/ryai.2021200254"


def test_a_rooms_face_hands_on_no_names():
    """Every digest, environment and start of a job would have all of the room otherwise."""
    package = PROJECT / "workflow/scripts/clotline"
    # The phantom's rules want all of it.
    rooms = {path for path in package.rglob("__init__.py") if path.parent.name != "phantom"}
    assert len(rooms) == 10
    for path in rooms:
        tree = ast.parse(path.read_text())
        assert len(tree.body) == 1 and ast.get_docstring(tree), path


def test_no_data_and_no_weights_are_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.split()
    endings = (".dcm", ".h5", ".pt", ".pth", ".parquet", ".npz", ".zip")
    assert [name for name in listed if name.endswith(endings)] == []
