"""The workflow's scripts, run as Snakemake would run them, in this process."""

import importlib.util
from types import SimpleNamespace

from bench import PROJECT


def script(name: str):
    """The ``main`` of one of the workflow's scripts."""
    path = PROJECT / f"workflow/scripts/{name}.py"
    spec = importlib.util.spec_from_file_location(f"clotline_script_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


class Files(list):
    """Paths in order, each also by its name, as Snakemake gives them."""

    def __init__(self, named: dict):
        super().__init__()
        for name, paths in named.items():
            setattr(self, name, paths)
            self.extend([paths] if isinstance(paths, str) else paths)


def job(name: str, inputs: dict, outputs: dict, params: dict | None = None, **wildcards) -> None:
    """Runs a script in the working directory, with one thread and no GPU.

    Args:
        name: of the script.
        inputs: name to path or paths, as in the rule.
        outputs: likewise.
        params: as in the rule.
        wildcards: likewise.
    """
    script(name)(
        SimpleNamespace(
            input=Files(inputs),
            output=Files(outputs),
            params=SimpleNamespace(**params or {}),
            wildcards=Files(wildcards),
            resources={"gpu": 0},
            threads=1,
            config={},
        )
    )
