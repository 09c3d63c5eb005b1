"""The weights that come with the package, a folder with a card each; this file imports nothing."""

DEFAULT = "small"
"""The reconstruction network that is taken where none is named, and the corrector of its scenes."""
FOR_MADE_VIEWS = "nano"
"""The same for views that were made out of a video: they agree less, and `small` trusts them more than it should
(docs/refinement.md, the inpainter as a teacher)."""
