"""DICOM files and labels to HDF5 shards, and the formats of all files."""
