"""Writes config/README.md from the schema: ``python -m tools.describe_config``."""

from pathlib import Path

from clotline.workflow.config import load_schema, resolve

HEAD = """\
# Configuration

`config/config.yaml` in the working directory says what to do; a key that it does not name has the
default below. On the command line, `--config seed=7` sets a key of the outermost level and
`--configfile more.yaml` adds a file with those of any. This page is made from
`workflow/schemas/config.schema.yaml` by `python -m tools.describe_config`.

Threads, memory, wall time and GPUs are no part of the configuration: they stand in the rules and
can be set by a profile.

| key | type | default | meaning |
|---|---|---|---|
"""


def describe_type(node: dict) -> str:
    """``number ≥ 0``, or the allowed words."""
    if "enum" in node:
        return ", ".join(f"`{word}`" for word in node["enum"])
    types = node.get("type", "")
    text = " or ".join(types) if isinstance(types, list) else types
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {node[key]}" for key, sign in signs.items() if key in node]
    return " ".join([text, ", ".join(bounds)]).strip()


def describe_keys(schema: dict, root: dict, prefix: str = ""):
    """A table row for every key, depth first."""
    for key, node in schema.get("properties", {}).items():
        node = resolve(node, root)
        name, nested = prefix + key, node.get("properties")
        default = node.get("default")
        shown = "" if nested and default in ({}, None) else f"`{as_yaml(default)}`"
        shown = "required" if key in schema.get("required", ()) else shown
        if prefix in ("cnn.", "lstm.", "finetune."):
            # The entries are alike: their keys are described once, below.
            nested = None
        meaning = " ".join(node.get("description", "").split()).replace("<", "&lt;")
        yield f"| `{name}` | {describe_type(node)} | {shown} | {meaning} |"
        if nested:
            yield from describe_keys(node, root, name + ".")


def as_yaml(value) -> str:
    """A default as it would be written in a configuration file."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value).replace("'", "")


def config_readme() -> str:
    """The whole text of config/README.md."""
    root = load_schema()
    rows = [
        *describe_keys(root, root),
        *describe_keys(root["$defs"]["backbone"], root, "cnn.<backbone>."),
        *describe_keys(root["$defs"]["lstm"], root, "lstm.<features>-<level>."),
        *describe_keys(root["$defs"]["finetune"], root, "finetune.<features>-<level>."),
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("config/README.md").write_text(
        config_readme(), encoding="utf-8"
    )
