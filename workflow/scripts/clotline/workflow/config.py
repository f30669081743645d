"""Reads a configuration against workflow/schemas/config.schema.yaml.

The schema is the single source of the defaults. This module fills them in, turns every violation
into a sentence that names the key and what is allowed, and checks what a schema cannot say:
fractions that sum to 1, names that refer to each other, paths that must exist.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from clotline.data.folder import is_address, is_zip
from clotline.errors import ClotlineError
from clotline.feature_sets import (
    REFERENCE,
    feature_sets,
    finetuned_models,
    level_pairs,
    own_models,
    split_lstm_name,
    trained_models,
)
from clotline.grid import SIZE
from clotline.labels import COLUMNS
from clotline.sections.cnn import CNNSection, cnn_sections
from clotline.sections.lstm import LSTMSection, lstm_sections
from clotline.workflow.architectures import TIMM_LIST, architectures, only_side
from clotline.workflow.initial_weights import check_initial_weights

SCHEMA_PATH = Path(__file__).parents[3] / "schemas" / "config.schema.yaml"

#: Where the phantom is written; fixed, so that making it can never touch a user's own data.
PHANTOM_DATA = {"labels": "data/phantom/train.csv", "dicom": "data/phantom/train"}


def load_schema(path: Path = SCHEMA_PATH) -> dict:
    """A JSON schema: the configuration's, or another."""
    # The loader in C: each start of Snakemake reads it.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def resolve(schema: dict, root: dict) -> dict:
    """The schema node itself, its ``$ref`` (if any) merged under the keys beside it."""
    if "$ref" not in schema:
        return schema
    target = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return resolve(target, root) | {k: v for k, v in schema.items() if k != "$ref"}


def subschema(schema: dict, key: str, root: dict) -> dict | None:
    """Schema of one key of an object schema, or None where the key is not allowed."""
    if key in schema.get("properties", {}):
        return resolve(schema["properties"][key], root)
    for pattern, node in schema.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return resolve(node, root)
    return None


def fill_defaults(value: Any, schema: dict, root: dict) -> Any:
    """A copy of ``value`` with the schema's defaults at every level, missing sections included.

    An object's own default is a base that the user's keys are laid over, so that
    ``cnn: {resnext50: {lr: 0.05}}`` keeps the backbone's library and architecture.
    """
    if not isinstance(value, dict):
        return value
    base = schema.get("default")
    filled = (base if isinstance(base, dict) else {}) | value
    for key, node in schema.get("properties", {}).items():
        node = resolve(node, root)
        if key not in filled and "default" in node:
            filled[key] = node["default"]
    return {
        key: fill_defaults(item, node, root) if (node := subschema(schema, key, root)) else item
        for key, item in filled.items()
    }


def describe(
    error: ValidationError, root: dict, written: Callable[[str, Any], str] = lambda _, v: str(v)
) -> str:
    """One schema violation as a sentence that names the key and what is allowed.

    Args:
        error: the violation.
        root: the schema.
        written: the text that a user wrote for a key's value.
    """
    key = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    value, rule = error.instance, error.validator_value
    if error.validator == "additionalProperties":
        return _describe_unknown_keys(error, key, root)
    if error.validator == "type":
        allowed = " or ".join(_TYPES[t] for t in ([rule] if isinstance(rule, str) else rule))
        text = f"{key} is {_show(value)}; it must be {allowed}"
        number_or_date = isinstance(value, int | float | date) and not isinstance(value, bool)
        if "string" in rule and number_or_date:
            own = written(key, value)
            read_as = "date" if isinstance(value, date) else "number"
            reads = (
                ""
                if own == str(value) and read_as == "number"
                else f"{own} is read as a {read_as}; "
            )
            text += f" ({reads}if it is the name of a file or folder, write ./{own})"
        if value == "null" or (value in ("true", "false") and "boolean" in rule):
            text += f" (Snakemake turns {value} on the command line into text: write it in a file)"
        if isinstance(value, str) and _is_number(value) and ("number" in rule or "integer" in rule):
            number = float(value)
            number = int(number) if number.is_integer() and "integer" in rule else number
            if value == repr(number):
                text += " (without quotes; Snakemake turns what is nested in --config into text)"
            else:
                text += f" (YAML reads {value} as text: write {number!r})"
        return text
    if error.validator == "enum":
        guess = difflib.get_close_matches(str(value), map(str, rule), 1)
        hint = f"; did you mean {guess[0]}?" if guess else ""
        return f"{key} is {_show(value)}; it must be one of {', '.join(map(str, rule))}{hint}"
    if error.validator == "required":
        missing = [name for name in rule if name not in value]
        return f"{key} lacks the key {' and '.join(missing)}"
    if error.validator in _BOUNDS:
        return f"{key} is {_show(value)}; it must be {_BOUNDS[error.validator]} {rule}"
    return f"{key}: {error.message}"


_TYPES = {
    "integer": "a whole number",
    "number": "a finite number",
    "string": "text",
    "boolean": "true or false",
    "object": "a section with keys of its own",
    "array": "a list",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def _describe_unknown_keys(error: ValidationError, key: str, root: dict) -> str:
    schema = resolve(error.schema, root)
    allowed = list(schema.get("properties", {}))
    patterns = [f"any name of the form {p}" for p in schema.get("patternProperties", {})]
    prefix = "" if key == "the configuration" else f"{key}."
    sentences = []
    for name in error.instance:
        if subschema(schema, str(name), root) is None:
            guess = difflib.get_close_matches(str(name), allowed, 1)
            hint = f"did you mean {prefix}{guess[0]}? " if guess else ""
            sentences.append(
                f"{prefix}{name} is no known key; {hint}Allowed: {', '.join(allowed + patterns)}"
            )
    return "\n  ".join(sentences)


def _show(value: Any) -> str:
    return f"the text {value!r}" if isinstance(value, str) else json.dumps(value, default=str)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_whole(_, value: Any) -> bool:
    # JSON has one type of number, of which 10.0 is whole too; but range(10.0) is an error.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(_, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_whole, "number": _is_finite}
    ),
)


def _keys_that_are_no_text(value: Any, prefix: str = ""):
    """A sentence for each key that YAML does not read as text, such as 50 or on."""
    for key, item in value.items() if isinstance(value, dict) else ():
        if not isinstance(key, str):
            yield (
                f"YAML reads the key {prefix}{key} as {type(key).__name__}, not text; put it in "
                "quotes, or begin it with a letter where it is a name"
            )
        yield from _keys_that_are_no_text(item, f"{prefix}{key}.")


def check_keys_stand_once(files: Sequence[str | Path]) -> None:
    """Checks configuration files for keys given twice in a section: YAML keeps the last.

    Raises:
        ClotlineError: with the file, the line and the key.
    """
    for path in files:
        try:
            node = yaml.compose(Path(path).read_bytes(), Loader=yaml.SafeLoader)
        except (OSError, yaml.YAMLError):
            continue  # Snakemake, which reads it too, tells
        for key in _repeated_keys(node):
            raise ClotlineError(
                f"{path}, line {key.start_mark.line + 1}: the key {key.value} stands twice in its "
                "section, and only the last would count: put the two together"
            )


def _repeated_keys(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, item in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    yield key
                seen.add(key.value)
            yield from _repeated_keys(item)


def as_written(files: Sequence[str | Path], arguments: Sequence[str]) -> Callable[[str, Any], str]:
    """Finds the text that a user wrote for a value that YAML or Snakemake made a number.

    Of 2020_01_15 both make 20200115, and of 1e3 and 0x10 other numbers.

    Args:
        files: configuration files.
        arguments: the command line, with the ``key=value`` of ``--config``.
    """

    def written(key: str, value: Any) -> str:
        texts = [a.partition("=")[2] for a in arguments if a.startswith(f"{key}=")]
        for path in files:
            with suppress(OSError, yaml.YAMLError):
                node = yaml.compose(Path(path).read_bytes(), Loader=yaml.SafeLoader)
                texts += _texts_at(node, key.split("."))
        return next((text for text in texts if _reads_as(text, value)), str(value))

    return written


def _texts_at(node: yaml.Node | None, keys: Sequence[str]) -> Iterator[str]:
    if not keys:
        if isinstance(node, yaml.ScalarNode):
            yield node.value
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            if key.value == keys[0]:
                yield from _texts_at(item, keys[1:])


def _reads_as(text: str, value: Any) -> bool:
    for read in (int, float, yaml.safe_load):
        with suppress(ValueError, yaml.YAMLError):
            if read(text) == value:
                return True
    return False


def load_config(
    user: dict, written: Callable[[str, Any], str] = lambda _, value: str(value)
) -> dict:
    """The complete configuration: the user's keys checked, all defaults filled in.

    Args:
        user: what the configuration file and ``--config`` gave.
        written: of `as_written`, for messages.

    Raises:
        ClotlineError: with every problem, each naming its key.
    """
    config, problems = complete(
        user, load_schema(), written, leaving_out=("cnn", "lstm", "finetune")
    )
    # The checks between keys assume that each key is sound by itself.
    problems = problems or list(_check_between_keys(config, user))
    problems = problems or list(check_initial_weights(config))
    if problems:
        raise ClotlineError("the configuration is not usable:\n  " + "\n  ".join(problems))
    if config["phantom"] is not None:
        config["data"] |= PHANTOM_DATA
    return config


def complete(
    user: Any,
    root: dict,
    written: Callable[[str, Any], str] = lambda _, value: str(value),
    leaving_out: Sequence[str] = (),
) -> tuple[dict, list[str]]:
    """What a user gave with all defaults of a schema, and a sentence on each thing wrong with it.

    Args:
        user: what was read of a file.
        root: the schema.
        written: of `as_written`, for messages.
        leaving_out: sections of which null leaves out an entry, also one that is there by default.
    """
    if problems := list(_keys_that_are_no_text(user)):
        return {}, problems
    filled = fill_defaults(user, root, root)
    for section in leaving_out:
        if isinstance(filled[section], dict):
            filled[section] = {k: v for k, v in filled[section].items() if v is not None}
    errors = sorted(_Validator(root).iter_errors(filled), key=lambda e: list(map(str, e.path)))
    # A named backbone matches a property and a pattern: dict drops the second mention.
    return filled, list(dict.fromkeys(describe(error, root, written) for error in errors))


def _check_between_keys(config: dict, user: dict):
    split = config["data"]["split"]
    total = split["train"] + split["valid"] + split["test"]
    if abs(total - 1) > 1e-6:
        yield f"data.split.train, valid and test sum to {total:g}; they must sum to 1"
    for key in ("column", "group"):
        if split[key] in COLUMNS:
            yield (
                f"data.split.{key} is {split[key]}, one of the competition's columns: name a "
                "further column of the labels file"
            )
    if split["group"] and split["group"] == split["column"]:
        yield f"data.split.group and data.split.column are both {split['group']}: name two columns"
    for name in split["folds_of"] or []:
        if name not in config["lstm"]:
            yield (
                f"data.split.folds_of names {name}, which is no entry of lstm; "
                f"there are {', '.join(config['lstm'])}"
            )
    if split["folds_of"] and not split["folds"]:
        yield "data.split.folds_of is set and data.split.folds is null: set it to a number of folds"
    if config["phantom"] is not None:
        for key in PHANTOM_DATA.keys() & user.get("data", {}).keys():
            yield (
                f"data.{key} is set although phantom is: the phantom is always written to "
                f"{PHANTOM_DATA[key]}. Remove one of the two keys"
            )
        if config["data"]["studies"]:
            yield (
                f"data.studies is {config['data']['studies']}, and the phantom's studies are no "
                "others than phantom.studies makes. Remove one of the two keys"
            )
        if split["column"]:
            yield (
                f"data.split.column is {split['column']}, and the phantom's labels have no such "
                "column. Remove one of the two keys"
            )
        if split["group"]:
            yield (
                f"data.split.group is {split['group']}, and the phantom's studies are of no "
                "patients. Remove one of the two keys"
            )
        if config["phantom"]["slices_min"] > config["phantom"]["slices_max"]:
            yield "phantom.slices_min is larger than phantom.slices_max"
        if config["phantom"]["difficulty"] == "hard" and config["phantom"]["slices_min"] < 20:
            yield (
                f"phantom.slices_min is {config['phantom']['slices_min']} slices: with fewer than "
                "20 an embolus of three slices is longer than most arteries. Set it to 20 or more, "
                "or phantom.difficulty to plain"
            )
    size = config["data"]["size"]
    for name, cnn in cnn_sections(config).items():
        given = user.get("cnn", {}).get(name)
        if size != SIZE and "crop" not in (given or {}):
            yield (
                f"cnn.{name}.crop is not set and data.size is {size} pixels: its default, "
                f"{cnn.crop} pixels, is for {SIZE} and would show the middle of a slice alone. Set "
                f"it; {round(cnn.crop * size / SIZE)} pixels are the same part of a slice"
            )
        elif cnn.crop > size:
            yield (
                f"cnn.{name}.crop is {cnn.crop} pixels; it must be at most data.size, {size} pixels"
            )
        if cnn.is_video and cnn.planes == 1:
            yield (
                f"cnn.{name}.library is {cnn.library}, whose networks see several slices, and "
                f"cnn.{name}.planes is 1: set it to 3 or more"
            )
        if cnn.planes == 1 and cnn.plane_distance_mm is not None:
            yield (
                f"cnn.{name}.plane_distance_mm is {cnn.plane_distance_mm:g} mm, and "
                f"cnn.{name}.planes is 1: set that to 3 or more, or plane_distance_mm to null"
            )
        if cnn.study_slices is not None and (cnn.epoch_slices or cnn.positive_share != 0.5):
            other = "epoch_slices" if cnn.epoch_slices else "positive_share"
            yield (
                f"cnn.{name}.study_slices is {cnn.study_slices} slices of each study, and "
                f"cnn.{name}.{other} draws them by label. Remove one of the two keys"
            )
        if cnn.input_size > cnn.crop:
            yield (
                f"cnn.{name}.input_size is {cnn.input_size} pixels; it must be at most "
                f"cnn.{name}.crop, {cnn.crop} pixels"
            )
        yield from _check_architecture(f"cnn.{name}", cnn)
        if not cnn.epochs and cnn.init == "random":
            yield _nothing_learned(f"cnn.{name}")
        if cnn.init not in ("imagenet", "random"):
            yield from _check_file(f"cnn.{name}.init", cnn.init, "imagenet or random")
            made = f"results/cnn/{name}.pt", f"results/cnn/{name}.last.pt"
            yield from _check_not_made(f"cnn.{name}.init", cnn.init, made)
    if not config["cnn"]:
        yield "cnn leaves out every backbone; at least one is needed"
    for name in (f"{REFERENCE}-image", f"{REFERENCE}-study"):
        if name not in config["lstm"]:
            yield (
                f"lstm.{name} is left out, and the comparisons, the submission and the viewer are "
                f"of the {REFERENCE} features: keep it, and name the backbones that there are "
                f"under features.{REFERENCE}"
            )
    for name, members in config["features"].items():
        if name in config["cnn"]:
            yield f"features.{name} has the name of a backbone; choose another name"
        for member in members:
            if member not in config["cnn"]:
                yield (
                    f"features.{name} names {member}, which is no backbone; "
                    f"there are {', '.join(config['cnn'])}"
                )
    sets = feature_sets(config)
    for name, lstm in lstm_sections(config).items():
        if split_lstm_name(name)[0] not in sets:
            yield (
                f"lstm.{name} uses the feature set {split_lstm_name(name)[0]}; "
                f"there are {', '.join(sets)}. To leave out this LSTM, set it to null"
            )
        if not lstm.epochs and lstm.init == "random":
            yield _nothing_learned(f"lstm.{name}")
        yield from _check_form(name, lstm)
        if lstm.init != "random":
            yield from _check_file(f"lstm.{name}.init", lstm.init, "random")
            made = (f"results/lstm/{name}.pt",)
            yield from _check_not_made(f"lstm.{name}.init", lstm.init, made)
    yield from _check_finetuning(config, sets)
    yield from _check_ensembles(config)
    models = [*own_models(config), *config["evaluation"]["external"]]
    pairs, submitted = level_pairs(models), config["evaluation"]["submission"]
    if submitted not in pairs:
        yield (
            f"evaluation.submission is {submitted}, which has no image level and study level; "
            f"there are {', '.join(pairs)}"
        )
    for key, is_there, lacking in (
        ("predict", Path.exists, "no such folder exists"),
        ("validate", Path.is_dir, "no such folder exists"),
        ("models", Path.is_file, "no such file exists; it is a bundle of models"),
    ):
        path = config[key]
        if path is not None and not is_there(Path(path)):
            text = ". Leave it out: Snakemake turns null in --config into text"
            yield f"{key} is {path}, and {lacking}{text if path == 'null' else ''}"
    for name, path in config["evaluation"]["external"].items():
        if name in config["lstm"]:
            yield f"evaluation.external.{name} has the name of an LSTM; choose another name"
        if not Path(path).is_file():
            yield f"evaluation.external.{name} is {path}, and no such file exists"


def _check_finetuning(config: dict, sets: dict[str, list[str]]):
    for name in config["finetune"]:
        if name not in config["lstm"]:
            yield (f"finetune.{name} is of no entry of lstm; there are {', '.join(config['lstm'])}")
        elif len(backbones := sets.get(split_lstm_name(name)[0], [name])) > 1:
            yield (
                f"finetune.{name} is of a network that reads the features of several backbones, "
                f"{', '.join(backbones)}, and one is trained on together with its network: name "
                "an entry of lstm whose feature set has one backbone"
            )


def _check_ensembles(config: dict):
    models = [*trained_models(config), *finetuned_models(config)]
    for name, members in config["ensembles"].items():
        if name in models or name in config["evaluation"]["external"]:
            yield f"ensembles.{name} has the name of another model; choose another name"
        level = split_lstm_name(name)[1]
        there = [model for model in models if split_lstm_name(model)[1] == level]
        for member in members:
            if member not in there:
                yield (
                    f"ensembles.{name} names {member}, which is no model of the {level} level that "
                    f"is made here; there are {', '.join(there)}"
                )


def _check_form(name: str, lstm: LSTMSection):
    entry, level = f"lstm.{name}", split_lstm_name(name)[1]
    if lstm.has_published_form(level):
        return
    differing = "its level" if level == "joint" else f"{entry}.{lstm.differing_keys[0]}"
    if lstm.target_replication:
        yield (
            f"{entry}.target_replication is {lstm.target_replication:g}, which is for the "
            f"published network, and {differing} gives it another form: set "
            "target_replication to 0, for pooling does what it is for"
        )
    if lstm.init != "random" and lstm.standardize and lstm.epochs:
        yield (
            f"{entry}.init names a file and {entry}.standardize is true, and {differing} "
            "gives the network another form than the published one, which alone can be trained on "
            "so: set standardize to false, for the file's network has its own, or init to random"
        )


def _check_architecture(entry: str, backbone: CNNSection):
    known, given = architectures(backbone.library), backbone.architecture
    side = only_side(backbone)
    if side not in (None, backbone.input_size):
        yield (
            f"{entry}.input_size is {backbone.input_size} pixels, and {given} of "
            f"{backbone.library} takes {side} alone: set it to that, or choose another architecture"
        )
    if given not in known:
        guess = difflib.get_close_matches(given, known, 1, 0.5)
        hint = f"did you mean {guess[0]}? " if guess else ""
        there = ", ".join(known)
        if backbone.library == "timm":
            there = f"{len(known):,}, listed in {TIMM_LIST}"
        yield (
            f"{entry}.architecture is {given}, and {backbone.library} has no such network that "
            "can be used; "
            f"{hint}There are {there}"
        )


def _nothing_learned(entry: str) -> str:
    return (
        f"{entry}.epochs is 0 and {entry}.init is random: a network of random weights would be "
        "evaluated. Name a file of weights in init, or train it"
    )


def _check_file(key: str, path: str, words: str):
    if not Path(path).is_file():
        yield f"{key} is {path}, and no such file exists; it must be {words}, or a file's path"


def _check_not_made(key: str, path: str, made: Sequence[str]):
    """Snakemake removes a job's outputs before it starts, so none can be its initial weights."""
    if Path(path).resolve() in [Path(own).resolve() for own in made]:
        yield f"{key} is {path}, which this training would replace: copy it elsewhere and name that"


def check_data_paths(config: dict) -> None:
    """Checks that the labels file and the DICOM folder exist (unless the phantom is to be made).

    Raises:
        ClotlineError: naming the key, the path and what to do.
    """
    if config["phantom"] is not None:
        return
    problems = []
    for key, exists, noun in (
        ("labels", Path.is_file, "file"),
        ("dicom", Path.is_dir, "folder"),
    ):
        path = Path(config["data"][key])
        if key == "dicom" and is_zip(config["data"]["dicom"]):
            if not is_address(config["data"]["dicom"]) and not path.is_file():
                problems.append(f"data.dicom is {path}, and no such ZIP file exists")
        elif not exists(path):
            problems.append(
                f"data.{key} is {path}, and no such {noun} exists under {Path.cwd()}: "
                f"set data.{key} in config/config.yaml to your {_DATA_WORDS[key]}"
            )
    studies = config["data"]["studies"]
    if studies is not None and not Path(studies).is_file():
        problems.append(f"data.studies is {studies}, and no such file exists")
    root = config["data"]["links_root"]
    if root is not None and not Path(root).is_dir():
        problems.append(f"data.links_root is {root}, and no such folder exists")
    if problems:
        raise ClotlineError("the data set is not there:\n  " + "\n  ".join(problems))


_DATA_WORDS = {
    "labels": "labels CSV",
    "dicom": "folder of <study>/<series>/<SOP instance>.dcm files",
}


def canonical(value: Any) -> str:
    """``value`` as one JSON string, keys sorted.

    Snakemake compares parameters as a set of repr values, to which swapped values look equal and
    reordered keys different; one canonical string has neither fault.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
