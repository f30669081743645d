"""The configuration's sections of networks, as jobs see them: checked, complete and typed."""
