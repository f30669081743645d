"""The version of Clotline, which bundles, reports and checkpoints name; see CHANGELOG.md."""

CLOTLINE_VERSION = "0.9.0"
