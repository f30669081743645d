"""One DICOM file to one slice of Hounsfield units."""
