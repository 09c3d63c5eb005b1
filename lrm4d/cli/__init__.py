"""The command `lrm4d`. Results go to standard output, progress and errors to standard error.

A command parses, calls the library and prints; each group of commands is a file. PyTorch takes seconds to import and
--help does not wait for it, so the commands import what they run when they run.
"""

from lrm4d.cli.command import main, run

__all__ = ["main", "run"]
