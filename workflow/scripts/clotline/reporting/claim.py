"""CLAIM, the Checklist for AI in Medical Imaging, as far as a pipeline can fill it in.

Items are numbered as by Mongan, Moy and Kahn, Radiology: Artificial Intelligence 2020,
doi 10.1148/ryai.2020200029.
"""

from collections.abc import Iterator

from clotline.data.patient_counts import describe_patients
from clotline.feature_sets import (
    finetuned_network,
    folded_backbones,
    folded_networks,
    split_lstm_name,
)
from clotline.grid import AIR_HU, PUBLISHED, grid_of
from clotline.sections.cnn import CNNSection, cnn_sections
from clotline.sections.lstm import LSTMSection, lstm_sections
from clotline.titles import counted

#: What a network of stage 2 gives, by its level.
OUTPUTS = {
    "image": "one logit a slice",
    "study": "nine labels a study",
    "joint": "one logit a slice and nine labels a study",
}

ITEMS = {
    1: "Study of artificial intelligence, type of technology",
    2: "Structured summary",
    3: "Background, intended use",
    4: "Objectives, hypotheses",
    5: "Prospective or retrospective",
    6: "Goal of the study",
    7: "Data sources",
    8: "Eligibility criteria, where and when",
    9: "Preprocessing",
    10: "Selection of subsets of the data",
    11: "Definitions of the data elements",
    12: "De-identification",
    13: "Missing data",
    14: "Definition of the reference standard",
    15: "Why this reference standard",
    16: "Annotators and their qualification",
    17: "Annotation tools",
    18: "Variability of the annotations",
    19: "Sample size and how it was determined",
    20: "Assignment to partitions",
    21: "Level at which partitions are disjoint",
    22: "Model, inputs, outputs",
    23: "Software",
    24: "Initial parameters",
    25: "Training: augmentation, hyperparameters, number of models",
    26: "Selection of the final model",
    27: "Ensembles",
    28: "Measures of performance",
    29: "Measures of uncertainty",
    30: "Robustness, sensitivity analysis",
    31: "Explanations of results",
    32: "Test on external data",
    33: "Flow of participants or cases",
    34: "Demographic and clinical characteristics of each partition",
    35: "Performance on all partitions",
    36: "Diagnostic accuracy with its precision",
    37: "Failure analysis",
    38: "Limitations",
    39: "Implications for practice, intended role",
    40: "Registration",
    41: "Protocol, code",
    42: "Funding",
}


def fill_in(
    config: dict, stored: int, rejected: int, overlap: int, patients: dict
) -> dict[int, str]:
    """What the pipeline knows of CLAIM's items; those missing here are the authors' to write.

    Args:
        config: the complete configuration.
        stored: number of slices stored.
        rejected: number of slices that could not be taken.
        overlap: number of studies in more than one split.
        patients: of `clotline.data.patient_counts.count_patients`.
    """
    split = config["data"]["split"]
    if split["column"]:
        division = f"By the column {split['column']} of the labels file."
    else:
        division = (
            f"By a hash of the study UID: {split['train']:g} train, {split['valid']:g} valid, "
            f"{split['test']:g} test, of studies."
        )
    if split["group"]:
        division += f" All studies of a patient ({split['group']}) are in one."
    if split["folds"]:
        together = "study UID" if split["group"] is None else f"patient ({split['group']})"
        division += (
            f" For {', '.join(folded_networks(config))} the studies beside test were also divided "
            f"into {split['folds']} folds by a hash of the {together}: each was kept from training "
            "once, while the next one chose the epoch."
        )
        if started := _folded_from_files(config):
            division += (
                f" {', '.join(started)} began with weights from a file: studies that those were "
                "trained on were not kept from them."
            )
    answers = _on_models(config, folded_networks(config)) | {
        10: f"CNNs: {_epochs(config)}. LSTMs and all metrics: every stored slice.",
        11: (
            "The labels of the RSNA-STR Pulmonary Embolism competition; PE is present where a "
            "study is neither a negative exam nor indeterminate. Its probability is (1 − negative "
            "exam)(1 − indeterminate)."
        ),
        12: (
            "Artifacts hold UIDs, pixels with their size and position, orientation, slice "
            "thickness and kernel, notes name scanners where a study has several, and no other "
            "header element is kept. How the files themselves were de-identified is the authors' "
            "to say."
        ),
        13: (
            f"{rejected:,} of {counted(stored + rejected, 'slice', 'slices')} could not be taken, "
            "listed with the reason. Nothing was imputed."
        ),
        19: (
            "The half widths of the intervals that this many studies give, and how many an "
            "interval of ±0.03 needs, are told above; how the number was chosen is the authors' "
            "to say."
        ),
        20: division,
        21: f"Studies; {overlap} are in more than one partition. {describe_patients(patients)}",
        28: (
            "AUROC, average precision, Brier score, log loss, operating points, calibration, "
            "decision curves, predictive values by prevalence."
        ),
        29: (
            f"{_intervals(config['evaluation']['bootstraps'])}; between models paired DeLong, "
            "mended for small samples, for studies and the paired bootstrap for slices."
        ),
        30: "Subgroups and bands of size above. More is the authors' to do.",
        33: "See Data.",
        35: "Test: above. Train and valid: the training curves.",
        36: "Above, with 95% intervals.",
        37: "The viewer lists false negatives and false positives first.",
        41: "The configuration is below; it and the code make these results again.",
    }
    if config["phantom"] is not None:
        answers[7] = (
            "An embedded phantom: drawings of the chest, no patients. Nothing here is true of "
            "patients."
        )
    return answers


def _on_models(config: dict, folded: list[str]) -> dict[int, str]:
    """Items on the models alone, which hold wherever these are applied."""
    # Older bundles know no finetuning.
    networks, finetuned = config["cnn"] | config["lstm"], config.get("finetune", {})
    grid = grid_of(config["data"]) if "data" in config else PUBLISHED
    return {
        1: "Deep learning: convolutional networks on slices, LSTMs on studies.",
        9: (
            "Hounsfield units by each file's rescale slope and intercept; padding that a file "
            f"declares (PixelPaddingValue) set to {AIR_HU} HU, what lies outside the field of view "
            "without being declared kept as it is stored; pictures that are not square made "
            f"square by {AIR_HU} HU around them; {grid} by area averaging, "
            "axial slices turned to show the patient's left on the right, in order "
            "along the scan axis. "
            + " ".join(_view(name, cnn) for name, cnn in cnn_sections(config).items())
        ),
        22: " ".join(
            [
                *(
                    f"{name}: {cnn['architecture']} of {cnn['library']}, one logit a slice."
                    for name, cnn in config["cnn"].items()
                ),
                *(
                    f"{name}: {lstm.describe_form()}, {OUTPUTS[split_lstm_name(name)[1]]}."
                    for name, lstm in lstm_sections(config).items()
                ),
            ]
        ),
        23: "See the software versions below.",
        24: " ".join(
            [
                *(f"{name}: {_start(entry)}." for name, entry in networks.items()),
                *(
                    f"{finetuned_network(name)}: the trained {name} and its CNN."
                    for name in finetuned
                ),
            ]
        ),
        25: " ".join(
            [
                *(_training(name, entry, grid.size) for name, entry in networks.items()),
                *(
                    _finetuning(name, entry, config["lstm"][name], grid.size)
                    for name, entry in finetuned.items()
                ),
            ]
        ),
        26: " ".join(
            [
                *(_selection(name, entry) for name, entry in networks.items()),
                *(
                    _selection(finetuned_network(name), config["lstm"][name] | entry | {"ema": 0})
                    for name, entry in finetuned.items()
                ),
            ]
        ),
        27: _ensembles(config.get("ensembles", {}), folded),
        31: "Class activation maps (Grad-CAM) in the viewer.",
    }


def _intervals(bootstraps: int) -> str:
    """What the intervals of metrics are by, which a test and a validation have in common."""
    return (
        "95% intervals: a score interval with DeLong's variance for AUROC of studies, Wilson for "
        "rates of studies and for rates of slices of 0 or 1 (a trial a study), logit intervals for "
        "predictive values by prevalence, logistic regression's (Wald) for calibration, "
        f"{bootstraps:,} bootstrap samples of studies for all else"
    )


def fill_in_validation(
    trained: dict, folded: list[str], flow: dict, recalibration: float, bootstraps: int
) -> dict:
    """What the pipeline knows of CLAIM's items where models are tested on another cohort.

    Args:
        trained: the configuration that made the models, as their bundle has it: its sections on
            networks, with the keys that its Clotline knew.
        folded: networks of stage 2 that were trained in folds, too.
        flow: of `clotline.reporting.validation.flow_of`.
        recalibration: part of the cohort on which probabilities are recalibrated.
        bootstraps: resamples of each bootstrap.
    """
    counted_labels = ", ".join(f"{name} ({count:,})" for name, count in flow["known"].items())
    seen = ", none of which the models were trained on"
    if flow["unseen"]:
        seen = "; whether the models were trained on some of them is not known"
    trained = trained | {
        "cnn": {n: CNNSection.of_checkpoint(e, n).as_dict() for n, e in trained["cnn"].items()},
        "lstm": {n: LSTMSection.of_checkpoint(e, n).as_dict() for n, e in trained["lstm"].items()},
    }
    return _on_models(trained, folded) | {
        6: "External test of trained models; nothing was trained on this cohort.",
        7: f"{flow['title']}. Where it comes from is the authors' to say.",
        10: (
            "Of each study the scan that is most surely the CTPA (docs/new-studies.md); every "
            "slice of it; studies that the models were trained on left out, as far as the bundle "
            "tells."
        ),
        11: f"Labels of the cohort, each with how many are known: {counted_labels}.",
        12: (
            "Artifacts hold UIDs and no other element of the header. Sex, age and names of "
            "studies and patients were read, and only figures of groups were kept."
        ),
        13: (
            "A label that nobody gave is unknown and counts neither as true nor as false. Studies "
            "without scan or label are counted in Data, with the reason."
        ),
        20: f"Recalibrated on {recalibration:g} of the cohort, by a hash; judged on the rest.",
        21: f"{flow['level']}. {flow['overlap']}",
        28: (
            "AUROC, average precision, Brier score, log loss; sensitivity, specificity, PPV and "
            "NPV at the bundle's thresholds and at thresholds chosen anew; calibration before "
            "and after recalibration; decision curves, predictive values by prevalence."
        ),
        29: (f"{_intervals(bootstraps)}; MOVER for differences from the internal test."),
        30: "Subgroups by scanner, slice thickness, contrast, sex and age, as far as known.",
        32: (
            f"This is one: {counted(flow['studies'], 'study', 'studies')}, {flow['positive']:,} "
            f"of them with a PE{seen}. Beside it stands the internal test."
        ),
        33: "See Data.",
        34: "Sex, age, scanner, slice thickness and contrast: see Subgroups, as far as known.",
        35: "Here and in the internal test: above. Train and valid: the report of the training.",
        36: "Above, with 95% intervals.",
        37: "The viewer lists false negatives and false positives first.",
        41: "The digests below name code, models, scans and labels.",
    }


def _epochs(config: dict) -> str:
    """Which slices the epochs of stage 1 have, once for all backbones or by name."""
    texts = {name: cnn.describe_epochs() for name, cnn in cnn_sections(config).items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}, {text}" for name, text in texts.items())


def _view(name: str, cnn: CNNSection) -> str:
    return (
        f"{name}: window level {cnn.window_level:g} HU, width {cnn.window_width:g} HU"
        f"{cnn.describe_channels()}, crop {cnn.crop}, input {cnn.input_size} pixels."
    )


def _folded_from_files(config: dict) -> list[str]:
    """Networks trained in folds, with their backbones, whose first weights are a file's."""
    entries = config["cnn"] | config["lstm"]
    names = [*folded_backbones(config), *folded_networks(config)]
    return [name for name in names if entries[name]["init"] not in ("imagenet", "random")]


def _start(entry: dict) -> str:
    """What a network's weights are at first."""
    of_videos = entry.get("library") == CNNSection.VIDEO
    return "Kinetics-400" if of_videos and entry["init"] == "imagenet" else entry["init"]


def _training(name: str, entry: dict, size: int) -> str:
    optimizer = {
        "sgd": f"stochastic gradient descent of momentum {entry['momentum']:g}",
        "adamw": "AdamW",
    }[entry["optimizer"]]
    loss = {
        "cross_entropy": "binary cross-entropy",
        "competition": "the competition's metric as loss",
    }[entry.get("loss", "cross_entropy")]
    # A division after the last epoch, or later, changed nothing.
    divided = [epoch for epoch in entry["milestones"] if epoch < entry["epochs"]]
    steps = ", ".join(map(str, divided))
    schedule = {
        "step": f"divided by 10 after the epochs {steps}" if divided else "constant",
        "one_cycle": "one cycle",
        "cosine": "to 0 along a cosine",
        "linear": "to 0 along a line",
        "constant": "constant",
    }[entry["schedule"]]
    text = (
        f"{name}: {optimizer}, {loss}, {counted(entry['epochs'], 'epoch', 'epochs')}, batches of "
        f"{entry['batch_size']}, learning rate {entry['lr']:g} ({schedule}), weight decay "
        f"{entry['weight_decay']:g}"
    )
    if entry["accumulate"] > 1:
        text += f", gradients of {entry['accumulate']} batches averaged"
    if entry["clip_norm"] is not None:
        text += f", gradients of a norm of at most {entry['clip_norm']:g}"
    if "hidden_size" in entry and entry["dropout"]:
        text += f", dropout of {entry['dropout']:g}"
    if "crop" in entry:
        text += ", random crops" if entry["crop"] < size else ", whole slices"
        text += ", half of them flipped upside down" if entry["vertical_flip"] else ""
        text += "".join(f", {words}" for words in _augmentation(entry))
    return f"{text}."


def _finetuning(name: str, entry: dict, of_lstm: dict, size: int) -> str:
    """How a network was trained on together with its CNN; its loss is the one that it had."""
    text = _training(finetuned_network(name), of_lstm | entry, size)
    changed = ", changed as in the CNN's training" if entry["augment"] else ""
    return (
        f"{text[:-1]}; both networks on the {entry['slices']} slices of each study that the CNN "
        f"found most suspicious{changed}, all batch normalisation frozen."
    )


def _augmentation(entry: dict) -> Iterator[str]:
    """What training changes in slices beyond where they are cut and flips upside down."""
    if entry["horizontal_flip"]:
        yield "half of them mirrored"
    if entry["scale"]:
        yield f"size changed by up to {entry['scale']:.0%}"
    if entry["rotate"]:
        yield f"turned by up to {entry['rotate']:g} degrees"
    if entry["contrast"]:
        yield f"contrast changed by up to {entry['contrast']:.0%}"
    if entry["cutout"]:
        yield f"two squares of {entry['cutout']:.0%} of the side set to air"


def _ensembles(ensembles: dict[str, list[str]], folded: list[str]) -> str:
    together = "combined models read the features of several networks together."
    means = [f"{name}: {', '.join(members)}" for name, members in ensembles.items()]
    if folded:
        means.append(f"folds: on test studies, all folds' networks of each of {', '.join(folded)}")
    if not means:
        return f"None; {together}"
    return (
        f"The mean of the probabilities of several models: {'; '.join(means)}. Besides, {together}"
    )


def _selection(name: str, entry: dict) -> str:
    """Which of a network's weights are kept."""
    epoch = {"best": "the epoch of lowest loss on the valid split", "last": "the last epoch"}
    averaged = f", averaged over steps ({entry['ema']:g} of the past)" if entry["ema"] else ""
    odds = ""
    if entry.get("calibrate_odds"):
        odds = "; all odds times one factor, fitted on the valid split"
    return f"{name}: {epoch[entry['keep']]}{averaged}{odds}."
