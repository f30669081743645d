"""A study's probabilities as a DICOM Structured Report: PS3.16, TID 1500 (Measurement Report).

Labels have codes of a scheme of our own, 99CLOTLINE, which the report names with its meaning.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import highdicom
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from clotline.data.dicom.source import Source
from clotline.evaluation.predictions import PE_PRESENT
from clotline.labels import STUDY_LABELS
from clotline.titles import TITLES
from clotline.version import CLOTLINE_VERSION

# Its lines quote the patient's name, and that does not belong into a log.
logging.getLogger("highdicom").setLevel(logging.CRITICAL)

#: What every result says of itself.
NOT_FOR_DIAGNOSIS = "Research use, not for diagnosis"

MANUFACTURER = "Clotline"

#: Designator of our own codes; those that begin with 99 are private (PS3.16, chapter 8).
SCHEME = "99CLOTLINE"

#: Number of the report's series in its study; those of the maps follow.
SERIES_NUMBER = 9001

#: Characters of a value of representation LO (PS3.5, 6.2).
_LONGEST = 64

_CODING_SCHEME = CodingSchemeIdentificationItem(
    designator=SCHEME, name="Labels of the RSNA-STR PE CT data set", responsible_organization=SCHEME
)


def shortened(name: str, room: int = _LONGEST) -> str:
    """A network's name, cut where an element has no more room than so many characters."""
    return name if len(name) <= room else f"{name[: room - 3]}..."


def described(name: str) -> str:
    """What made a result and what it is not for, of at most 64 characters."""
    room = _LONGEST - len(f"{MANUFACTURER} : {NOT_FOR_DIAGNOSIS}")
    return f"{MANUFACTURER} {shortened(name, room)}: {NOT_FOR_DIAGNOSIS}"


@contextmanager
def unsaid() -> Iterator[None]:
    """Keeps to itself what highdicom and pydicom warn of: they quote the patient's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@unsaid()
def write_report(
    sources: Sequence[Source],
    probabilities: Mapping[str, float],
    model: str,
    made_by: Sequence[str],
) -> sr.ComprehensiveSR:
    """The report of one study.

    Args:
        sources: of all slices that the model read.
        probabilities: of PE present and the nine labels.
        model: name of the study-level model.
        made_by: further lines on the model, such as the digest of its bundle.

    Returns:
        A data set that can be saved; the study's and patient's elements are those of the sources.
    """
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=highdicom.UID(), name=MANUFACTURER, manufacturer_name=MANUFACTURER,
        model_name=model, serial_number=CLOTLINE_VERSION,
    )  # fmt: skip
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    algorithm = sr.AlgorithmIdentification(
        name=f"{MANUFACTURER} {model}",
        version=CLOTLINE_VERSION,
        parameters=[NOT_FOR_DIAGNOSIS, *made_by],
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(highdicom.UID(), f"{MANUFACTURER} {model}"),
        finding_type=codes.SCT.PulmonaryEmbolism,
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(
                name=_code(name, f"Probability of {TITLES[name]}"),
                value=round(float(probabilities[name]), 6),
                unit=codes.UCUM.NoUnits,
            )
            for name in (PE_PRESENT, *STUDY_LABELS)
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                _code("intended_use", "Intended use"),
                _code("not_for_diagnosis", NOT_FOR_DIAGNOSIS),
            )
        ],
        source_images=_references(sources),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
    )
    return sr.ComprehensiveSR(
        evidence=_evidence(sources),
        content=content[0],
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=shortened(model),
        software_versions=CLOTLINE_VERSION,
        series_description=f"{MANUFACTURER}: {NOT_FOR_DIAGNOSIS}",
        coding_schemes=[_CODING_SCHEME],
        is_complete=True,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )


def _code(value: str, meaning: str) -> sr.CodedConcept:
    # CodeValue takes 16 characters; what is longer is a LongCodeValue.
    return sr.CodedConcept(value, SCHEME, meaning)


def _evidence(sources: Sequence[Source]) -> list:
    """Each instance once."""
    return list({source.dataset.SOPInstanceUID: source.dataset for source in sources}.values())


def _references(sources: Sequence[Source]) -> list[sr.SourceImageForMeasurementGroup]:
    frames: dict[tuple[str, str], list[int]] = {}
    for source in sources:
        key = source.dataset.SOPClassUID, source.dataset.SOPInstanceUID
        frames.setdefault(key, []).extend([source.frame] if source.frame else [])
    return [
        sr.SourceImageForMeasurementGroup(sop_class, uid, numbers or None)
        for (sop_class, uid), numbers in frames.items()
    ]
