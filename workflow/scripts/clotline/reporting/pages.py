"""What the report and the viewer share: their templates, and their first lines."""

from pathlib import Path

import jinja2

from clotline.evaluation.intervals import describe_estimate, estimate_parts
from clotline.evaluation.metrics_files import describe_verdict
from clotline.evaluation.predictions import PE_PRESENT
from clotline.job.progress import clock
from clotline.titles import TITLES, counted, signed, with_minus

#: Folder of the pages' templates, styles and scripts.
FOLDER = Path(__file__).parents[3] / "report"

PHANTOM = "An embedded phantom: drawings of the chest, no patients"


def templates(folder: Path) -> jinja2.Environment:
    """The templates of a folder, with the filters of all pages; what they are given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "estimate": describe_estimate,
        "parts": estimate_parts,
        "clock": clock,
        "title": lambda name: TITLES.get(name, name),
        "counted": counted,
        "signed": signed,
        "minus": with_minus,
        "verdict": describe_verdict,
    }
    return environment


def describe_data(config: dict) -> dict:
    """What the data of a configuration are: ``phantom`` (bool) and, in words, ``title``."""
    if config["phantom"] is not None:
        return {"phantom": True, "title": PHANTOM}
    return {"phantom": False, "title": f"The studies of {config['data']['labels']}"}


def describe_bundle(config: dict, model: str, metrics: dict) -> dict:
    """What the models of a bundle were trained on, for whoever applies them to other data.

    Args:
        config: the configuration that made them.
        model: name of the study-level model that is shown.
        metrics: its metrics.

    Returns:
        ``phantom`` (bool) and ``title``.
    """
    main = metrics["targets"].get(PE_PRESENT)
    auroc = (
        f"AUROC of {model} for PE present there {describe_estimate(main['auroc'])}" if main else ""
    )
    if config["phantom"] is not None:
        title = (
            "Models trained on an embedded phantom (drawings of the chest, no patients): their "
            f"probabilities say nothing about patients. {auroc}"
        )
        return {"phantom": True, "title": title}
    title = f"Models of another data set, applied to these studies. {auroc}"
    return {"phantom": False, "title": title}
