"""The grid of stored slices, which all networks see."""

#: Side of a stored slice, in pixels.
SIZE = 256

#: What lies outside the scanned field of view, in Hounsfield units.
AIR_HU = -1000
