"""No file that the workflow reads can run code; what is installed is what the lock file pins."""

import ast
import base64
import hashlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("workflow", "profiles", "tools")
    for path in (PROJECT / folder).rglob("*.py")
)

#: Modules whose readers run what a file says, and calls that run text.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "pd.read_pickle", "yaml.load"}
CALLS |= {"yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "torch.hub.load"}


def calls_in(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield f"{path}: line {node.lineno}", ast.unparse(node.func), options


#: Reads what a file of weights holds without making any of it.
SHAPE_READER = "weights_file.py"


def test_no_module_is_imported_that_unpickles():
    assert len(SOURCES) > 50
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if path.name == SHAPE_READER and names == ["pickle"]:
                continue
            assert not MODULES & {name.partition(".")[0] for name in names}, path


def test_the_reader_of_shapes_knows_only_what_it_lists():
    """Of pickle it uses the class alone whose names it looks up itself, in a list of its own."""
    (path,) = (path for path in SOURCES if path.name == SHAPE_READER)
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pickle"
    }
    assert used <= {"Unpickler", "UnpicklingError"}
    (reader,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases)
    )
    assert {"find_class", "persistent_load"} <= {getattr(n, "name", "") for n in reader.body}


def test_no_call_runs_what_a_file_says():
    loads = 0
    for path in SOURCES:
        for place, name, options in calls_in(path):
            safe = name == "yaml.load" and options.get("Loader") == "yaml.CSafeLoader"
            assert safe or name not in CALLS, place
            assert options.get("shell") != "True", place
            assert options.get("allow_pickle", "False") == "False", place
            if name == "torch.load":
                loads += 1
                assert options.get("weights_only") == "True", place
    assert loads == 1


def locked() -> dict[str, str]:
    """Name to version of each package that the lock file pins for this machine."""
    text = (PROJECT / "requirements.lock").read_text()
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)(?: *; *([^\\\n]+))?", text, re.MULTILINE)
    return {name: version for name, version, marker in found if not marker.strip()}


def test_the_installed_packages_are_those_of_the_lock_file():
    assert len(locked()) > 50
    found = {name: importlib.metadata.version(name) for name in locked()}
    assert found == locked()


def test_no_installed_package_lacks_another_or_has_one_of_a_wrong_version():
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("suffix", [".py", ".so"])
def test_installed_files_are_those_that_were_published(suffix):
    """Each package lists the SHA-256 of its files; those above 2 MB would take minutes."""
    checked = 0
    for name in locked():
        for file in importlib.metadata.distribution(name).files or ():
            path = Path(file.locate())
            if not (file.hash and file.suffix == suffix) or path.stat().st_size > 2_000_000:
                continue
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
            encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            assert encoded == file.hash.value, f"{name}: {path} has changed since it was installed"
            checked += 1
    assert checked > 300
