"""Reads how a labelled cohort lies in its folder, against workflow/schemas/cohort.schema.yaml."""

from pathlib import Path

import yaml

from clotline.errors import ClotlineError
from clotline.labels import STUDY_LABELS
from clotline.workflow.config import complete, load_schema

SCHEMA_PATH = Path(__file__).parents[3] / "schemas" / "cohort.schema.yaml"

#: Descriptions of known data sets, by their names.
SHIPPED = Path(__file__).parents[4] / "config" / "cohorts"

#: What a cohort's own folder may have, and what is taken where it has none.
OWN, GENERIC = "cohort.yaml", "table"


def load_description(folder: str | Path, named: str | None) -> dict:
    """The complete description of a cohort.

    Args:
        folder: of the cohort.
        named: the configuration's ``cohort``: a known data set, the path of a description, or
            None: the cohort's own, or else that of any table.

    Raises:
        ClotlineError: there is none of that name, or it cannot be used; says which key and why.
    """
    path = _path_of(folder, named)
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClotlineError(
            f"the description of the cohort {path} cannot be read: {error}"
        ) from None
    description, problems = complete({} if given is None else given, load_schema(SCHEMA_PATH))
    if not problems:
        problems = list(_check(description))
    if problems:
        raise ClotlineError(
            f"the description of the cohort {path} is not usable:\n  " + "\n  ".join(problems)
        )
    return description


def _path_of(folder: str | Path, named: str | None) -> Path:
    if named is None:
        own = Path(folder, OWN)
        return own if own.is_file() else SHIPPED / f"{GENERIC}.yaml"
    if Path(named).is_file():
        return Path(named)
    shipped = SHIPPED / f"{named}.yaml"
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
    raise ClotlineError(
        f"cohort is {named}, and neither a file nor a known data set is called so; known are "
        f"{known} (docs/data-sets.md)"
    )


def _check(description: dict):
    known = ("pe_present", *STUDY_LABELS)
    for label in description["labels"]:
        if label not in known:
            yield f"labels.{label} is no label of Clotline; there are {', '.join(known)}"
    if description["table"] is None and description["masks"] is None:
        yield "table and masks are both null; one of them has to label the studies"
    if description["mask_order"] != "geometry" and description["masks"] is None:
        yield f"mask_order is {description['mask_order']}, and masks is null"
    for key in ("masks", "files"):
        patterns = description[key] if isinstance(description[key], list) else [description[key]]
        for pattern in filter(None, patterns):
            if ("{study}" in pattern) == ("{number}" in pattern):
                yield f"{key} is {pattern}; {{study}} or {{number}} must say where the name stands"
