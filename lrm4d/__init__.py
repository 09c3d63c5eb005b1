"""lrm4d: a few posed pictures of something that moves become a 4D scene in one pass of a network."""

__version__ = "0.1.0"
