"""The text form of paths: "orbit:turns=2,ease=in-out + dolly:to=2; bullet".

path     = together { ";" together }               one after another
together = part { "+" part }                       at the same time
part     = move | "(" path ")"
move     = name [ ":" option { "," option } ]      names and options: see moves.py
option   = name "=" value                          a number, an easing, or times as 0:1:0
"""

import re
from dataclasses import fields

from lrm4d.trajectories.moves import MOVES, Move
from lrm4d.trajectories.path import Path, sequence, together

TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<word>[A-Za-z_][\w-]*)|(?P<mark>.))", re.DOTALL
)


def parse_path(text: str) -> Path:
    """The path of a text; parse_path(str(path)) == path. ValueError names the wrong word and what is known."""
    reader = _Reader(text)
    try:
        path = reader.read_sequence()
    except RecursionError as error:
        raise reader.error("too many parentheses within each other") from error
    if reader.next:
        raise reader.error(f"did not expect '{reader.next}'; moves are joined by ';' (then) or '+' (together)")
    return path


def known_options(kind: type[Move]) -> str:
    """A move's options with their defaults, for people; times apart, None stands for what is there already."""
    own = [f"{item.name}={item.default:g}" for item in fields(kind) if not item.kw_only and item.default is not None]
    free = [item.name for item in fields(kind) if not item.kw_only and item.default is None]
    common = [item.name for item in fields(kind) if item.kw_only]
    return ", ".join([*own, *free, *common])


class _Reader:
    """Reads tokens from the left; `next` is the one that comes, empty at the end."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = [match[0].strip() for match in TOKEN.finditer(text.strip())]

    @property
    def next(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def error(self, message: str) -> ValueError:
        return ValueError(f"trajectory '{self.text}': {message}.")

    def take(self) -> str:
        return self.tokens.pop(0) if self.tokens else ""

    def takes(self, mark: str) -> bool:
        """Take that mark, if it comes."""
        return self.next == mark and bool(self.take())

    def read_sequence(self) -> Path:
        parts = [self.read_together()]
        while self.takes(";"):
            parts.append(self.read_together())
        return sequence(*parts)

    def read_together(self) -> Path:
        parts = [self.read_part()]
        while self.takes("+"):
            parts.append(self.read_part())
        try:
            return together(*parts)
        except ValueError as error:
            raise self.error(str(error).rstrip(".")) from error

    def read_part(self) -> Path:
        if not self.takes("("):
            return self.read_move()
        path = self.read_sequence()
        if not self.takes(")"):
            raise self.error(f"expected ')' instead of '{self.next}'")
        return path

    def read_move(self) -> Move:
        name = self.take()
        if name not in MOVES:
            raise self.error(f"no move '{name}'; there are {', '.join(MOVES)}")
        kind, options = MOVES[name], {}
        while self.takes("," if options else ":"):
            key, value = self.read_option(name)
            if key in options:
                raise self.error(f"{name} says {key} twice")
            options[key] = value
        try:
            return kind(**options)
        except ValueError as error:
            raise self.error(str(error).rstrip(".")) from error

    def read_option(self, name: str) -> tuple[str, float | str]:
        """A key and its value: a number, or text for ease and time."""
        kind, key = MOVES[name], self.take()
        equals, value = self.takes("="), self.take()
        while self.next == ":":
            value += self.take() + self.take()
        if equals and key in {item.name for item in fields(kind)}:
            if key in ("ease", "time"):
                return key, value
            try:
                return key, float(value)
            except ValueError:
                pass
        raise self.error(f"cannot read '{key}{'=' if equals else ''}{value}'; {name} knows {known_options(kind)}")
