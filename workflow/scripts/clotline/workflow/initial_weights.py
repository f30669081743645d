"""Whether the weights that a training is to start from fit its network, before anything is run."""

from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from clotline.errors import ClotlineError
from clotline.feature_sets import feature_sets, split_lstm_name
from clotline.labels import STUDY_LABELS
from clotline.sections.cnn import CNNSection, cnn_sections
from clotline.sections.lstm import LSTMSection, lstm_sections
from clotline.titles import counted
from clotline.workflow.architectures import width
from clotline.workflow.weights_file import NoWeightsError, WeightsFile, read_weights_file

CHECKPOINT_FORMAT = "clotline-checkpoint"

#: The parameters of an LSTM by their published names.
LSTM_PARAMETERS = (
    "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0",
    "linear.weight", "linear.bias",
)  # fmt: skip


def check_initial_weights(config: dict) -> Iterator[str]:
    """A sentence for each ``init`` whose file does not fit: the key, what it is, what it must be.

    Args:
        config: the complete configuration, its names known to be sound.
    """
    cnns = cnn_sections(config)
    widths = {
        name: sum(width(cnns[backbone]) for backbone in backbones)
        for name, backbones in feature_sets(config).items()
    }
    for name, cnn in cnns.items():
        if cnn.init not in ("imagenet", "random") and Path(cnn.init).is_file():
            wanted = _cnn_words(cnn.as_dict())
            yield from _check(f"cnn.{name}.init", cnn.init, wanted, widths, cnns)
    for name, lstm in lstm_sections(config).items():
        if lstm.init != "random" and Path(lstm.init).is_file():
            features, level = split_lstm_name(name)
            if not lstm.has_published_form(level):
                wanted = _sequence_words(level, widths[features], lstm)
            else:
                wanted = _lstm_words(level, widths[features], lstm.hidden_size)
            yield from _check(f"lstm.{name}.init", lstm.init, wanted, widths, cnns)


def _check(
    key: str, path: str, wanted: str, widths: dict[str, int], backbones: Container[str]
) -> Iterator[str]:
    try:
        described = _describe(read_weights_file(path))
    except NoWeightsError as error:
        described = str(error)
    if described != wanted:
        whose = _alone(described, widths, backbones)
        yield f"{key} is {path}, {described}{whose}; it must be {wanted}"


def _cnn_words(entry: Mapping) -> str:
    """A checkpoint of a backbone, by what its first layer and the names of its weights follow from.

    Args:
        entry: of ``cnn``; of an older checkpoint it may lack keys that there were not.
    """
    library, windows = entry.get("library"), 1 + len(entry.get("further_windows", ()))
    # A video network has the same weights for any number of planes.
    planes = 1 if library == CNNSection.VIDEO else entry.get("planes", 1)
    text = f"a Clotline checkpoint of {library}'s {entry.get('architecture')}"
    if planes * windows > 1:
        seen = counted(planes, "slice", "slices"), counted(windows, "window", "windows")
        text += f" that sees {' through '.join(seen)}"
    return text


def _lstm_words(level: str, features: int, hidden: int) -> str:
    article = "an image" if level == "image" else "a study"
    return f"{article}-level LSTM on {features} features with {hidden} hidden units"


def _sequence_words(level: str, features: int, section: LSTMSection) -> str:
    form = section.describe_form()
    which = f"{'an' if level == 'image' else 'a'} {level}-level"
    if level == "joint":
        which = "a joint"
    return f"a Clotline checkpoint of {which} {form}, on {features} features"


def _describe(file: WeightsFile) -> str:
    """What a file is, in the words of what is wanted."""
    shapes = file.shapes
    if sequence := _describe_sequence(file.about):
        return sequence
    if lstm := _describe_lstm(shapes):
        return lstm
    if file.about.get("format") == CHECKPOINT_FORMAT:
        config = file.about.get("config")
        if file.about.get("kind") == "cnn" and isinstance(config, dict):
            return _cnn_words(config)
        return "the state of an unfinished Clotline training"
    first = next(iter(shapes))
    return f"a state dict of {len(shapes)} tensors, {first} the first of them"


def _describe_sequence(about: dict) -> str | None:
    """A network of another form than the published one, by what its checkpoint says of it."""
    with suppress(ClotlineError, TypeError, KeyError):
        section = LSTMSection.of_checkpoint(about["config"], "") if "config" in about else None
        level = split_lstm_name(about["name"])[1]
        if about.get("kind") == "lstm" and section and not section.has_published_form(level):
            return _sequence_words(level, about["width"], section)
    return None


def _describe_lstm(shapes: dict[str, tuple[int, ...]]) -> str | None:
    lacking = [name for name in LSTM_PARAMETERS if name not in shapes]
    if len(lacking) == len(LSTM_PARAMETERS):
        return None
    further = [name for name in shapes if name not in LSTM_PARAMETERS]
    if lacking or further:
        odd = f"it lacks {lacking[0]}" if lacking else f"it has {further[0]} too"
        return f"an LSTM of another form ({odd})"
    if any(len(shapes[name]) != (2 if "weight" in name else 1) for name in LSTM_PARAMETERS):
        return "an LSTM whose tensors do not fit one another"
    gates, features = shapes["lstm.weight_ih_l0"]
    outputs, hidden = shapes["linear.weight"]
    levels = {1: "image", len(STUDY_LABELS): "study"}
    expected = {
        "lstm.weight_hh_l0": (4 * hidden, hidden),
        "lstm.bias_ih_l0": (4 * hidden,),
        "lstm.bias_hh_l0": (4 * hidden,),
        "linear.bias": (outputs,),
    }
    if gates != 4 * hidden or any(shapes[name] != shape for name, shape in expected.items()):
        return "an LSTM whose tensors do not fit one another"
    if outputs not in levels:
        return f"an LSTM of {outputs} outputs"
    return _lstm_words(levels[outputs], features, hidden)


def _alone(described: str, widths: dict[str, int], backbones: Container[str]) -> str:
    """The feature sets that an LSTM may have been trained on, by their number of features."""
    fitting = [name for name, total in widths.items() if f"LSTM on {total} features" in described]
    if not fitting:
        return ""
    alone = "'s alone" if fitting[0] in backbones else "'s"
    return f" ({' or '.join(fitting)}{alone})"
