"""A labelled cohort that was not trained on: what its labels say, and of which studies.

How a cohort lies in its folder is said by a description (workflow/schemas/cohort.schema.yaml), not
by code: which file holds the labels, which columns name the study and its labels, how true and
false are written, and where the files of a study lie. Labels that nobody gave are `UNKNOWN`, never
false.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clotline.data.archives import WITHIN
from clotline.data.cells import read_cells
from clotline.data.csv_file import UNREADABLE
from clotline.data.dicom.words import plain_patient_id
from clotline.data.unpredicted import UNLABELLED
from clotline.errors import ClotlineError
from clotline.job.files import files_under
from clotline.labels import NO_PE_LABELS, STUDY_LABELS, STUDY_UID, UIDS, UNKNOWN

#: What the labels of a cohort may say beside the nine study labels.
PE_PRESENT = "pe_present"
TARGETS = (PE_PRESENT, *STUDY_LABELS)

#: Which part of the cohort a study is in: probabilities are recalibrated on the first.
PART, FITTED, HELD_OUT = "part", "recalibration", "evaluation"

#: Columns of the list of what is not counted: the study's UID, empty where it has no scan; where
#: its labels stand, which tells it without a name that could be a patient's; and why.
EXCLUDED_COLUMNS = (STUDY_UID, "labels", "reason")

SEX, AGE, SCANNER = "sex", "age", "scanner"

_LINE = "line"


@dataclass(frozen=True)
class CohortLabels:
    """What the labels table of a cohort, or the names of its masks, say.

    Attributes:
        studies: one row a study, by its name (the index): the columns `TARGETS` (int8),
            ``patient`` (text as it is compared, empty where unknown) and ``labels``, where they
            stand. Names and patients must not be written.
        slices: names of slices to whether they show an embolus, by the name of the study; empty
            where the table has no rows of slices.
        people: ``sex``, ``age`` (years) and ``scanner`` by the name of the study, as far as the
            table has them. They must not be written beside a UID.
        missing: where labels stand that cannot be used, and why.
    """

    studies: pd.DataFrame
    slices: dict[str, dict[str, int]]
    people: pd.DataFrame
    missing: list[tuple[str, str]]


def read_cohort(folder: str | Path, description: Mapping) -> CohortLabels:
    """The labels of a cohort.

    Args:
        folder: of the cohort.
        description: of workflow/schemas/cohort.schema.yaml, complete.

    Raises:
        ClotlineError: a table or a column is not there, or a cell says neither yes nor no nor that
            it is missing; names file, line, column, value and remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ClotlineError(
            f"{folder} (validate) is no folder: name the folder that holds the scans and their "
            "labels; the scans in it may be archives, the labels not"
        )
    if description["table"] is None:
        return _of_masks(folder, description)
    path, table = _read_tables(folder, description)
    column = _Columns(path, table)
    study = column.named(description["study"], "study")
    names = table[study].map(lambda cell: _as_name(cell, description))
    if (empty := names == "").any():
        raise ClotlineError(
            f"{path}, line {table.loc[empty, _LINE].iloc[0]}: the study (column {study}) has no "
            f"name ({int(empty.sum()):,} such rows)"
        )
    words = description["words"]
    values = {
        label: _truths(path, table, found, words)
        for label, wanted in description["labels"].items()
        if (found := column.maybe(wanted))
    }
    if not values and not description["masks"]:
        wanted = ", ".join(_texts(list(description["labels"].values())))
        raise ClotlineError(
            f"{path} has no column of labels: it has {column.there()}, and the description of the "
            f"cohort asks for {wanted} (docs/data-sets.md)"
        )
    labels = pd.DataFrame(values, index=table.index)
    slices: dict[str, dict[str, int]] = {}
    if description["slice"] is not None:
        slices = _of_slices(path, table, names, column, description, labels)
        # A study has a PE where a slice has; it has none where all are known to have none.
        of_study = labels[PE_PRESENT].groupby(names)
        highest, lowest = of_study.transform("max"), of_study.transform("min")
        labels[PE_PRESENT] = highest.where((highest == 1) | (lowest != UNKNOWN), UNKNOWN)
    labels = _with_pe_present(labels)
    told = labels.assign(
        patient=(
            table[patient].map(plain_patient_id)
            if (patient := column.maybe(description["patient"]))
            else ""
        ),
        **{
            key: table[found] if (found := column.maybe(description[key])) else ""
            for key in (SEX, AGE, SCANNER)
        },
        labels=[f"{path.name}, line {line}" for line in table[_LINE]],
        line=table[_LINE],
        study=names,
    )
    studies, missing = _one_row_a_study(told)
    people = studies[[SEX, AGE, SCANNER]]
    return CohortLabels(studies[[*TARGETS, "patient", "labels"]], slices, people, missing)


class _Columns:
    """The columns of a table, found whatever the case of their letters."""

    def __init__(self, path: Path, table: pd.DataFrame):
        self._path = path
        self._names = {name.strip().casefold(): name for name in table.columns if name != _LINE}

    def there(self) -> str:
        """Their names, for messages."""
        return ", ".join(list(self._names.values())[:40])

    def maybe(self, wanted: str | Sequence[str] | None) -> str | None:
        """The first that is there of those that are wanted."""
        return next(
            (self._names[n.casefold()] for n in _texts([wanted]) if n.casefold() in self._names),
            None,
        )

    def named(self, wanted: str | Sequence[str], key: str) -> str:
        """The same, of one that has to be there."""
        found = self.maybe(wanted)
        if found is None:
            raise ClotlineError(
                f"{self._path} has no column {' or '.join(_texts([wanted]))}: it has "
                f"{self.there()}. Name it as {key} in the description of the cohort "
                "(docs/data-sets.md)"
            )
        return found


def _texts(wanted: Iterable[str | Sequence[str] | None]) -> list[str]:
    """Names of columns, each given alone, as one of several, or not at all."""
    return [
        name
        for names in wanted
        for name in ([] if names is None else [names] if isinstance(names, str) else names)
    ]


def _read_tables(folder: Path, description: Mapping) -> tuple[Path, pd.DataFrame]:
    """The table of labels with those that are joined to it."""
    path = _only_file(folder, description["table"])
    table = _read(path, _texts([description["study"], *description["labels"].values()]))
    for join in description["join"]:
        other = _only_file(folder, join["table"])
        further = _read(other, [join["on"]]).drop(columns=_LINE)
        left = _Columns(path, table).named(join["on"], "join.on")
        right = _Columns(other, further).named(join["on"], "join.on")
        further = further.rename(columns={right: left})
        # What both have is the first table's.
        further = further[[left, *(name for name in further if name not in table)]]
        table = table.merge(further, on=left, how="left").fillna("")
    for name, values in description["keep"].items():
        found = _Columns(path, table).named(name, "keep")
        table = table[table[found].isin(values)]
    if table.empty:
        kept = f" that description keeps ({description['keep']})" if description["keep"] else ""
        raise ClotlineError(f"{path} has no rows{kept}")
    return path, table.reset_index(drop=True)


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        there = (
            "no file"
            if not found
            else f"{len(found)} files, as {found[0].name} and {found[1].name}"
        )
        csv = sorted(p.name for p in folder.iterdir() if re.search(r"\.(csv|tsv)(\.gz)?$", p.name))
        hint = f" The folder has {', '.join(csv[:5])}." if csv and not found else ""
        raise ClotlineError(
            f"{folder} (validate) has {there} {pattern}, which the description of the cohort "
            f"names as a table.{hint} Name one file as table in {folder / 'cohort.yaml'} "
            "(docs/data-sets.md)"
        )
    return found[0]


def _read(path: Path, columns: Collection[str]) -> pd.DataFrame:
    try:
        return read_cells(path, columns)
    except (*UNREADABLE, ValueError) as error:
        raise ClotlineError(f"the table {path} cannot be read: {error}") from None


def _as_name(cell: str, description: Mapping) -> str:
    """A study's name in the table, in the form that the names of its files give."""
    cell = cell.strip()
    by_number = any("{number}" in pattern for pattern in _texts([description["files"]]))
    if by_number and (digits := re.search(r"(\d+)\D*$", cell)):
        return str(int(digits[1]))
    return cell


def _truths(path: Path, table: pd.DataFrame, column: str, words: Mapping) -> pd.Series:
    """1, 0 and `UNKNOWN` of a column of labels."""
    said = {
        word.strip().casefold(): value
        for value, key in ((1, "yes"), (0, "no"), (UNKNOWN, "missing"))
        for word in words[key]
    }
    cells = table[column].str.strip().str.casefold()
    if (bad := ~cells.isin(said)).any():
        row = table[bad].iloc[0]
        raise ClotlineError(
            f"{path}, line {row[_LINE]}: {column} is {row[column]!r} ({int(bad.sum()):,} such "
            f"rows); it must be one of {', '.join(words['yes'])} (yes), {', '.join(words['no'])} "
            "(no) or a word for missing: name others under words in the description of the cohort"
        )
    return cells.map(said).astype("int8")


def _of_slices(
    path: Path,
    table: pd.DataFrame,
    names: pd.Series,
    column: _Columns,
    description: Mapping,
    labels: pd.DataFrame,
) -> dict[str, dict[str, int]]:
    if PE_PRESENT not in labels:
        raise ClotlineError(
            f"{path} has rows of slices, and no column of {PE_PRESENT} under labels"
        )
    slices: dict[str, dict[str, int]] = defaultdict(dict)
    name_of = column.named(description["slice"], "slice")
    told = zip(names, table[name_of], labels[PE_PRESENT], table[_LINE], strict=True)
    for study, name, value, line in told:
        if slices[study].setdefault(name.strip(), int(value)) != value:
            raise ClotlineError(
                f"{path}, line {line}: the label of this slice contradicts an earlier line"
            )
    return dict(slices)


def _with_pe_present(labels: pd.DataFrame) -> pd.DataFrame:
    """All of `TARGETS`; PE present also where the two labels say that tell of it."""
    labels = labels.reindex(columns=list(TARGETS), fill_value=UNKNOWN)
    absent = labels[list(NO_PE_LABELS)]
    said = pd.Series(UNKNOWN, labels.index)
    said = said.mask((absent == 0).all(axis=1), 1).mask((absent == 1).any(axis=1), 0)
    present = labels[PE_PRESENT]
    return labels.assign(**{PE_PRESENT: present.mask(present == UNKNOWN, said)}).astype("int8")


def _one_row_a_study(told: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows of each study as one; those that contradict each other are not counted."""
    first = told.drop_duplicates("study").set_index("study")
    # Each is what the first row says that says anything.
    for name in ("patient", SEX, AGE, SCANNER):
        known = told[told[name] != ""].drop_duplicates("study").set_index("study")[name]
        first[name] = known.reindex(first.index).fillna("")
    # A row that does not know contradicts none that does, and -1 is less than either.
    first[list(TARGETS)] = told[list(TARGETS)].groupby(told["study"]).max()
    known = told[list(TARGETS)].where(told[list(TARGETS)] != UNKNOWN)
    differing = known.groupby(told["study"]).nunique().gt(1)
    missing = []
    for study, columns in differing[differing.any(axis=1)].iterrows():
        lines = told.loc[told["study"] == study, _LINE]
        reason = f"contradicting labels: {columns.idxmax()} differs up to line {lines.iloc[-1]}"
        missing.append((first.loc[study, "labels"], reason))
    first = first[~differing.any(axis=1).reindex(first.index)]
    unknown = (first[list(TARGETS)] == UNKNOWN).all(axis=1)
    missing += [(where, "no label is known") for where in first.loc[unknown, "labels"]]
    return first[~unknown], missing


def _of_masks(folder: Path, description: Mapping) -> CohortLabels:
    """Studies that have nothing but masks, which are read when the scans are."""
    masks = mask_files(folder, description)
    if not masks:
        raise ClotlineError(
            f"{folder} (validate) has no mask {description['masks']}, and the description of the "
            "cohort names no table: one of the two has to label the studies"
        )
    unknown = dict.fromkeys(TARGETS, UNKNOWN)
    studies = pd.DataFrame(unknown, index=pd.Index(masks, name="study"), dtype="int8")
    people = pd.DataFrame("", studies.index, [SEX, AGE, SCANNER])
    return CohortLabels(studies.assign(patient="", labels=list(masks.values())), {}, people, [])


def mask_files(folder: str | Path, description: Mapping) -> dict[str, str]:
    """Names of studies to the paths of their masks, as the description says.

    Raises:
        ClotlineError: two masks are of one study.
    """
    if description["masks"] is None:
        return {}
    pattern = _expression(description["masks"])
    found: dict[str, str] = {}
    for path in files_under(folder):
        if match := pattern.fullmatch(path):
            name = _name_in(match)
            if name in found:
                raise ClotlineError(
                    f"{found[name]} and {path} in {folder} are both masks of {name}: keep one"
                )
            found[name] = path
    return found


def _expression(pattern: str) -> re.Pattern:
    """What fits a pattern of paths, with the study's name or number as a group."""
    parts = {"{study}": "(?P<study>[^/]+?)", "{number}": r"(?P<number>\d+)", "*": "[^/]*?"}
    texts = re.split(r"(\{study\}|\{number\}|\*)", pattern.strip("/"))
    return re.compile("".join(parts.get(text, re.escape(text)) for text in texts))


def _name_in(match: re.Match) -> str:
    groups = match.groupdict()
    return groups["study"] if groups.get("study") else str(int(groups["number"]))


def studies_of(
    rows: pd.DataFrame, names: Collection[str], description: Mapping
) -> dict[str, set[str]]:
    """What the labels call each study whose files were found.

    Args:
        rows: ``StudyInstanceUID`` and ``path`` of files.
        names: of the studies in the labels.
        description: of the cohort.

    Returns:
        StudyInstanceUID to the names that its files have; one, if all is well.
    """
    patterns = [_expression(pattern) for pattern in _texts([description["files"]])]
    known = frozenset(names)
    found: dict[str, set[str]] = {}
    for study, paths in rows.groupby(STUDY_UID, sort=False)["path"]:
        if not patterns and study in known:
            found[study] = {study}
            continue
        found[study] = set().union(*(_names_on(path, patterns, known) for path in paths.unique()))
    return found


#: Endings of files that the labels may leave out.
_ENDING = re.compile(r"(\.nii|\.nrrd|\.dcm)?(\.gz|\.bz2|\.xz|\.zip)?$", re.IGNORECASE)


def _names_on(path: str, patterns: Sequence[re.Pattern], known: frozenset[str]) -> set[str]:
    """What a path says of the study's name."""
    parts = path.replace(WITHIN, "/").split("/")
    if patterns:
        paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        matches = [pattern.fullmatch(part) for pattern in patterns for part in paths]
        return {_name_in(match) for match in matches if match} & known
    names = {path, *parts}
    names |= {_ENDING.sub("", name) for name in names}
    return names & known


@dataclass(frozen=True)
class Matched:
    """A cohort's scans and labels, put together.

    Attributes:
        rows: of `clotline.data.series.find_series`, those of labelled studies.
        labels: one row a labelled study: StudyInstanceUID, `TARGETS` (int8) and ``part``.
        unlabelled: the other rows as rejects, with the columns of
            `clotline.data.rejects.REJECT_COLUMNS`.
        missing: labels that are not counted, as of `EXCLUDED_COLUMNS`.
        patients: how many patients the labels name, and how many of them have several studies;
            None where they name none.
    """

    rows: pd.DataFrame
    labels: pd.DataFrame
    unlabelled: pd.DataFrame
    missing: pd.DataFrame
    patients: tuple[int, int] | None


def match_labels(
    cohort: CohortLabels,
    rows: pd.DataFrame,
    series: pd.DataFrame,
    left_out: pd.DataFrame,
    description: Mapping,
    recalibration: float,
) -> Matched:
    """Puts scans and labels together; what has not both is listed.

    Args:
        cohort: the labels.
        rows: of `clotline.data.series.find_series`.
        series: of the same.
        left_out: of the same.
        description: of the cohort.
        recalibration: part of the studies, of those of a patient together, on which probabilities
            are recalibrated: those whose patient's name, or else StudyInstanceUID, has the lowest
            hash.

    Raises:
        ClotlineError: no labelled study is among the scans.
    """
    studies = cohort.studies
    given = studies_of(rows, studies.index, description)
    matched, why = one_study_a_name(given)
    missing = list(cohort.missing)
    absent = set(studies.index) - set(matched.values())
    for name, reason in _why_not_there(absent, series, left_out, description).items():
        missing.append((studies.loc[name, "labels"], reason))
    if not matched:
        raise ClotlineError(_nothing_matched(cohort, given, description))
    unlabelled = rows.loc[~rows[STUDY_UID].isin(matched), [*UIDS, "path"]]
    unlabelled = unlabelled.assign(reason=unlabelled[STUDY_UID].map(why))
    labels = studies.loc[list(matched.values())].assign(**{STUDY_UID: list(matched)})
    groups = labels["patient"].where(labels["patient"] != "", labels[STUDY_UID])
    labels[PART] = parts_of(groups, recalibration)
    listed = [("", *told) for told in missing]
    return Matched(
        rows[rows[STUDY_UID].isin(matched)].reset_index(drop=True),
        labels[[STUDY_UID, *TARGETS, PART]].sort_values(STUDY_UID, ignore_index=True),
        unlabelled,
        pd.DataFrame(listed, columns=list(EXCLUDED_COLUMNS)),
        _patients(labels["patient"]),
    )


def one_study_a_name(given: Mapping[str, set[str]]) -> tuple[dict[str, str], dict[str, str]]:
    """The studies that the labels tell apart, and why the others have no labels.

    Args:
        given: of `studies_of`.

    Returns:
        StudyInstanceUID to what the labels call it; and StudyInstanceUID to the reason.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    why: dict[str, str] = {}
    for uid, names in given.items():
        if len(names) == 1:
            by_name[next(iter(names))].append(uid)
        elif names:
            why[uid] = (
                f"{UNLABELLED}: the paths of its files name {len(names)} studies of the labels"
            )
        else:
            why[uid] = f"{UNLABELLED}: the labels name neither its UID nor its files"
    matched = {}
    for name, uids in by_name.items():
        if len(uids) == 1:
            matched[uids[0]] = name
        else:
            said = f"{UNLABELLED}: {len(uids)} studies of the folder have one name in the labels"
            why |= dict.fromkeys(uids, said)
    return matched, why


def parts_of(groups: pd.Series, recalibration: float) -> pd.Series:
    """Which part each study is in, whatever the order of studies.

    Args:
        groups: of each study its patient, or what else keeps studies together.
        recalibration: the share of the studies on which probabilities are recalibrated; it is met
            as nearly as groups stay whole. A draw by each one's hash alone could take 5 of 40
            studies for a share of 0.3.
    """
    sizes = groups.value_counts()
    # With a word of its own: else a part would be a split of the training data, by its hash.
    hashes = [hashlib.sha256(f"recalibration {group}".encode()).digest() for group in sizes.index]
    sizes = sizes.iloc[sorted(range(len(sizes)), key=hashes.__getitem__)]
    fitted = sizes.cumsum() - sizes / 2 <= recalibration * len(groups)
    return groups.map(fitted).map({True: FITTED, False: HELD_OUT})


def _patients(patients: pd.Series) -> tuple[int, int] | None:
    counts = patients[patients != ""].value_counts()
    return (len(counts), int((counts > 1).sum())) if len(counts) else None


def _why_not_there(
    names: Collection[str], series: pd.DataFrame, left_out: pd.DataFrame, description: Mapping
) -> dict[str, str]:
    """Why a labelled study is not among the scans, as far as the lists tell."""
    files = left_out.assign(**{STUDY_UID: left_out["path"]})
    told = {
        name: f"its file was left out: {reason}"
        for (_, reason), found in zip(
            left_out[["path", "reason"]].itertuples(index=False),
            studies_of(files, names, description).values(),
            strict=True,
        )
        for name in found
    }
    for row in series[~series["chosen"]].itertuples(index=False):
        if row.StudyInstanceUID in names:
            told[row.StudyInstanceUID] = f"no scan of it was taken: {row.reason}"
    return {name: told.get(name, "no scan of it is in the folder") for name in sorted(names)}


def _nothing_matched(cohort: CohortLabels, given: Mapping, description: Mapping) -> str:
    how = (
        " or ".join(_texts([description["files"]]))
        or "StudyInstanceUID, or a name on the files' paths"
    )
    return (
        f"none of {len(cohort.studies):,} labelled studies (the first: "
        f"{cohort.studies['labels'].iloc[0]}) is among the {len(given):,} scans that were found "
        f"(as {next(iter(given))}); they are looked for by {how}. Say in the description of the "
        "cohort which column is the study, and where its files lie (docs/data-sets.md)"
    )
