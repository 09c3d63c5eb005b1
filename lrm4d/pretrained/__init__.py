"""The weights that come with the package, a folder with a card each; this file imports nothing."""

DEFAULT = "small"
"""The reconstruction network that is taken where none is named, and the corrector of its scenes."""
