"""All creatures that the world has."""

from data_tools.animals import blob, four_legged, swimmer, two_legged_lizard
from data_tools.figures import standing, walker

CREATURES = (
    (four_legged, 5.0),
    (two_legged_lizard, 3.0),
    (standing, 5.0),
    (swimmer, 3.0),
    (blob, 1.5),
    (walker, 2.0),
)
"""Makers of creatures and their weights."""
