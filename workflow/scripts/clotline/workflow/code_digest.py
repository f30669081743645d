"""A digest of the code that a job's result depends on.

Snakemake's own code trigger sees neither imported modules nor the difference between a comment and
a change. Here the digest covers the syntax trees of a script and of every module of this package
that it imports, transitively, without comments, docstrings and layout.

What carries a job or makes it fast lies in the room ``job``, and what is said to a user stands in
the arguments of ``ClotlineError(...)``, ``unusable(...)`` and ``log.<level>(...)``: neither counts.
The texts of ``SliceError`` do count, for they are stored in the lists of rejects.

What a module gave is kept where its bytecode would be, and taken while its text is the same:
reading all of them anew would be a third of the time that Snakemake takes to start.
"""

import ast
import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

PACKAGE = Path(__file__).parents[1].name
SCRIPTS = Path(__file__).parents[2]

#: What cannot change what a job computes: see the room's own docstring.
PLUMBING = ("job", "errors", "version", "workflow.code_digest")


@cache
def code_digest(script: str, without: tuple[str, ...] = ()) -> str:
    """SHA-256 (16 hex digits) of ``workflow/scripts/<script>`` and the modules it imports.

    Args:
        script: file name in ``workflow/scripts``.
        without: modules of this package, or whole rooms, to leave out because what they give to
            the script is itself among the rule's params.
    """
    modules: dict[Path, str] = {}
    left_out = tuple(f"{PACKAGE}.{module}." for module in (*PLUMBING, *without))
    _collect(SCRIPTS / script, modules, left_out)
    parts = [f"{path.relative_to(SCRIPTS)}\n{tree}" for path, tree in sorted(modules.items())]
    return _sha256("\n".join(parts).encode())[:16]


def _collect(path: Path, modules: dict[Path, str], left_out: tuple[str, ...]) -> None:
    """Adds a module and what it imports, but what begins as a name that is left out, with a dot."""
    if path in modules:
        return
    modules[path], imported = _read(path)
    for name in imported:
        if not f"{name}.".startswith(left_out) and (path_of := _find(name)):
            _collect(path_of, modules, left_out)


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax tree, and what it imports; most rules share most modules."""
    content = path.read_bytes()
    made_of = [_sha256(content), _own_source()]
    kept = Path(cache_from_source(path)).with_suffix(".digest")
    # Whatever is wrong with what was kept, it can be made again.
    with suppress(OSError, ValueError, KeyError, TypeError):
        earlier = json.loads(kept.read_bytes())
        if earlier["made_of"] == made_of:
            return earlier["tree"], tuple(earlier["imported"])
    tree = ast.parse(content, filename=str(path))
    imported = tuple(_imported(tree, ".".join(path.parent.relative_to(SCRIPTS).parts)))
    _strip_docstrings(tree)
    _strip_what_is_said(tree)
    digest = _sha256(ast.dump(tree).encode())
    _keep(kept, {"made_of": made_of, "tree": digest, "imported": imported})
    return digest, imported


def _keep(path: Path, result: dict) -> None:
    new = path.with_suffix(f".{os.getpid()}")
    # Where the project may not be written to, it is made anew each time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(result), encoding="utf-8")
        new.replace(path)


@cache
def _own_source() -> str:
    """Digest of this module: what another version of it kept does not count."""
    return _sha256(Path(__file__).read_bytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _imported(tree: ast.AST, package: str):
    """Absolute names of what ``tree``, a module in ``package``, imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            yield base
            # `from clotline import training` names a module, not an attribute
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _find(name: str) -> Path | None:
    if name != PACKAGE and not name.startswith(PACKAGE + "."):
        return None
    base = SCRIPTS.joinpath(*name.split("."))
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


def _strip_what_is_said(tree: ast.AST) -> None:
    """Removes the arguments of errors and log lines, unless they set a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_said(node.func):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            inside = (part for value in given for part in ast.walk(value))
            if not any(isinstance(part, ast.NamedExpr) for part in inside):
                node.args, node.keywords = [], []


def _is_said(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return isinstance(function.value, ast.Name) and function.value.id == "log"
    return isinstance(function, ast.Name) and function.id in ("ClotlineError", "unusable")


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
            and isinstance(node.body[0].value, ast.Constant)
            and isinstance(node.body[0].value.value, str)
        ):
            node.body = node.body[1:]
