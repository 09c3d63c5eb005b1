"""python -m lrm4d.cli is the command too."""

from lrm4d.cli import main

main()
