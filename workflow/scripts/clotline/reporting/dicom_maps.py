"""A study's class activation maps as a DICOM Parametric Map: PS3.3, A.75.

Maps keep their own few cells, each as large as it is in the patient: nothing is interpolated, so
that a map looks as coarse as it is.
"""

from collections.abc import Sequence

import highdicom
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from clotline.data.activation_file import Activation
from clotline.data.dicom.placement import Plane
from clotline.data.dicom.source import Source
from clotline.reporting.dicom_report import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    SCHEME,
    SERIES_NUMBER,
    described,
    shortened,
    unsaid,
)
from clotline.version import CLOTLINE_VERSION

#: Largest stored value. Maps are stored as integers with a slope to their own values, for not all
#: software that knows Parametric Maps reads Float Pixel Data.
_STEPS = 2**16 - 1
#: Least value that is taken for a map's highest, so that one of zeros has a slope.
_LEAST = 1e-6

#: Planes of one map are parallel, and their cells alike, within this share.
_ALIKE = 1e-3

#: Slices nearer to each other than this, in mm, are at one position, which a map has once.
_APART_MM = 1e-3


class NoMapError(Exception):
    """Why there is no map of some slices."""


@unsaid()
def write_map(
    sources: Sequence[Source], activation: Activation, backbone: str, number: int
) -> ParametricMap:
    """The map of slices, of which all or none are frames of one file.

    Args:
        sources: of the slices, in any order.
        activation: the backbone's maps of these slices, in that order.
        backbone: name of the CNN.
        number: of the map within its study, from 1.

    Returns:
        A data set that can be saved: a frame a slice, each with its own position and a reference to
        its source.

    Raises:
        NoMapError: the files do not say where their slices lie.
    """
    planes = _cells(sources, activation)
    kept = _one_a_position(planes)
    planes, sources = [planes[k] for k in kept], [sources[k] for k in kept]
    maps = activation.maps[kept]
    step = max(float(maps.max(initial=0)), _LEAST) / _STEPS
    first = sources[0].dataset
    images = [_of_frames(sources)] if sources[0].frame else _aligned(sources)
    # Where each file is in a series of its own, highdicom wants those of one first.
    of_first, others = (
        [image for image in images if (image.SeriesInstanceUID == first.SeriesInstanceUID) == same]
        for same in (True, False)
    )
    made = ParametricMap(
        source_images=of_first,
        further_source_images=others or None,
        pixel_array=np.rint(maps / step).astype(np.uint16),
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER + number,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=shortened(backbone),
        software_versions=CLOTLINE_VERSION,
        device_serial_number=CLOTLINE_VERSION,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="ACTIVATION",
                lut_explanation="Class activation (Grad-CAM)",
                unit=codes.UCUM.NoUnits,
                value_range=(0, _STEPS),
                slope=step,
                intercept=0.0,
                quantity_definition=highdicom.sr.CodedConcept(
                    "class_activation", SCHEME, "Class activation (Grad-CAM)"
                ),
            )
        ],
        voi_lut_transformations=[highdicom.VOILUTTransformation((_STEPS + 1) / 2, _STEPS + 1)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="ACTIVATION",
        content_description=described(backbone),
        series_description=described(backbone),
        pixel_measures=highdicom.PixelMeasuresSequence(
            pixel_spacing=planes[0].spacing, slice_thickness=_thickness(planes)
        ),
        plane_orientation=highdicom.PlaneOrientationSequence(
            highdicom.CoordinateSystemNames.PATIENT, planes[0].orientation
        ),
        plane_positions=[
            highdicom.PlanePositionSequence(
                highdicom.CoordinateSystemNames.PATIENT, plane.corner.tolist()
            )
            for plane in planes
        ],
        specific_character_set=first.SpecificCharacterSet,
    )
    made.ImageComments = NOT_FOR_DIAGNOSIS
    made.BodyPartExamined = "CHEST"
    _refer_by_frame(made, planes, sources)
    return made


def _cells(sources: Sequence[Source], activation: Activation) -> list[Plane]:
    """Where the cells of each slice's map lie.

    Raises:
        NoMapError: not known, or not as one map can have it.
    """
    if any(source.plane is None for source in sources):
        raise NoMapError(
            "no usable ImagePositionPatient, ImageOrientationPatient or PixelSpacing: nothing says "
            "where the maps lie"
        )
    frames = {source.dataset.get("FrameOfReferenceUID", "") for source in sources}
    if "" in frames:
        raise NoMapError("no usable FrameOfReferenceUID: nothing says where the maps lie")
    if len(frames) > 1:
        raise NoMapError("slices of several frames of reference, and a map has one")
    _, rows, columns = activation.maps.shape
    planes = []
    for source in sources:
        margin = (source.size - activation.crop) // 2
        planes.append(source.plane.part(margin, margin, activation.crop, columns, rows))
    first = planes[0]
    size = max(first.spacing)
    for plane in planes:
        differs = max(
            np.abs(plane.right - first.right).max(), np.abs(plane.down - first.down).max()
        )
        if differs > _ALIKE * size:
            raise NoMapError("slices of different orientation or pixel size")
    return planes


def _normal(plane: Plane) -> np.ndarray:
    normal = np.cross(plane.right, plane.down)
    return normal / np.linalg.norm(normal)


def _one_a_position(planes: Sequence[Plane]) -> list[int]:
    """Indices of the planes from the first position to the last, the first of each position."""
    along = np.array([plane.corner @ _normal(planes[0]) for plane in planes])
    order = np.argsort(along, kind="stable")
    apart = np.diff(along[order], prepend=-np.inf) > _APART_MM
    return order[apart].tolist()


def _thickness(planes: Sequence[Plane]) -> float:
    """The usual distance between slices: of so coarse a map there is no thickness of its own."""
    along = np.sort([plane.corner @ _normal(planes[0]) for plane in planes])
    return float(np.median(np.diff(along))) if len(along) > 1 else 1.0


def _aligned(sources: Sequence[Source]) -> list[Dataset]:
    """Data sets as highdicom wants them: of one orientation to the last digit."""
    sets = []
    for source in sources:
        dataset = Dataset()
        dataset.update(source.dataset)
        plane, first = source.plane, sources[0].plane
        dataset.ImageOrientationPatient = first.orientation
        dataset.ImagePositionPatient = plane.corner.tolist()
        dataset.PixelSpacing, dataset.SliceThickness = list(first.spacing), None
        sets.append(dataset)
    return sets


def _of_frames(sources: Sequence[Source]) -> Dataset:
    """One data set of many frames with no more groups than highdicom looks at."""
    first = sources[0]
    dataset = Dataset()
    dataset.update(first.dataset)
    dataset.NumberOfFrames = len(sources)
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = first.plane.orientation
    measures.PixelSpacing = list(first.plane.spacing)
    measures.SliceThickness = 1
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for source in sources:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = source.plane.corner.tolist()
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset


def _refer_by_frame(
    made: ParametricMap, planes: Sequence[Plane], sources: Sequence[Source]
) -> None:
    """Says of each frame which slice it was made of: highdicom orders frames in its own way."""
    corners = np.array([plane.corner for plane in planes])
    for frame in made.PerFrameFunctionalGroupsSequence:
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        source = sources[int(np.abs(corners - position).max(axis=1).argmin())]
        image = Dataset()
        image.ReferencedSOPClassUID = source.dataset.SOPClassUID
        image.ReferencedSOPInstanceUID = source.dataset.SOPInstanceUID
        if source.frame:
            image.ReferencedFrameNumber = source.frame
        image.PurposeOfReferenceCodeSequence = [
            highdicom.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        ]
        image.SpatialLocationsPreserved = "NO"
        derivation = Dataset()
        derivation.DerivationDescription = "Class activation map (Grad-CAM)"
        derivation.SourceImageSequence = [image]
        derivation.DerivationCodeSequence = [
            highdicom.sr.CodedConcept("class_activation", SCHEME, "Class activation (Grad-CAM)")
        ]
        frame.DerivationImageSequence = [derivation]
