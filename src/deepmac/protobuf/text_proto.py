"""Protocol buffers in text form (``pipeline.config``, label maps), read without their schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deepmac.errors import UserError

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))
      | (?P<name>-?[A-Za-z_]\w*|\[[A-Za-z_][\w./]*\](?=\s*[:{<]))
      | (?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_ESCAPES = {
    "a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11,
    "\\": 92, "'": 39, '"': 34, "?": 63,
}  # fmt: skip
_ESCAPE = re.compile(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")


class TextProtoError(ValueError):
    """Text that is no text-form message; says where."""


class Message:
    """Fields by name, each a list of its values in order, and the lines that these stand on.

    Values are messages, str (strings, and words such as enum names), int, float or bool.
    """

    def __init__(self) -> None:
        self.fields: dict[str, list[Message | str | int | float | bool]] = {}
        self.lines: dict[str, list[int]] = {}

    def messages(self, name: str) -> list[Message]:
        """The messages under ``name``, other values left out."""
        return [value for value in self.fields.get(name, []) if isinstance(value, Message)]

    def message(self, path: str) -> Message | None:
        """The message at a path of names joined by dots; where repeated, the last one."""
        found: Message | None = self
        for name in path.split("."):
            inner = found.messages(name) if found is not None else []
            found = inner[-1] if inner else None
        return found

    def scalars(self, name: str) -> list[str | int | float | bool]:
        """The values under ``name`` that are no messages."""
        return [value for value in self.fields.get(name, []) if not isinstance(value, Message)]


def read_text_proto(path: Path) -> Message:
    """Parse a file.

    Raises:
        UserError: no such file, one that is no text, above 1 MB, or malformed.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise TextProtoError(f"it has more than {_MAX_BYTES} bytes")
        return parse_text_proto(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give the file of the model's settings"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file: give a file in protobuf's text form") from error
    except TextProtoError as error:
        raise UserError(f"{path} is not in protobuf's text form: {error}") from error


def parse_text_proto(text: str) -> Message:
    """Parse a whole text.

    Raises:
        TextProtoError: with the line where it goes wrong.
    """
    tokens = _Tokens(text)
    message = _fields(tokens, "", 0)
    if tokens.kind != "end":
        raise tokens.error("a closing bracket too many")
    return message


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


class _Tokens:
    """The text as tokens, one ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._counted = 0, 1  # a position, and its line
        self._stream = self._scan()
        self._current = next(self._stream)

    @property
    def kind(self) -> str:
        return self._current.kind

    @property
    def text(self) -> str:
        return self._current.text

    def take(self) -> str:
        """The current token's text; move on."""
        text = self._current.text
        self._current = next(self._stream)
        return text

    def accept(self, *marks: str) -> str | None:
        """Take the token if it is one of these marks."""
        return self.take() if self.kind == "mark" and self.text in marks else None

    def error(self, complaint: str, position: int | None = None) -> TextProtoError:
        line = self.line if position is None else self._line_of(position)
        return TextProtoError(f"{complaint} at line {line}")

    @property
    def line(self) -> int:
        """Of the current token, from 1."""
        return self._line_of(self._current.position)

    def _line_of(self, position: int) -> int:
        at, line = self._counted if self._counted[0] <= position else (0, 1)
        line += self._text.count("\n", at, position)
        self._counted = position, line
        return line

    def _scan(self) -> Iterator[_Token]:
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                raise self.error(f"unexpected {self._text[position]!r}", position)
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match.group(), position)
            position = match.end()
        while True:
            yield _Token("end", "", len(self._text))


def _fields(tokens: _Tokens, closing: str, depth: int) -> Message:
    """Fields up to the bracket ``closing``, or to the end."""
    if depth > _MAX_DEPTH:
        raise tokens.error("brackets are nested too deeply")
    message = Message()
    while True:
        if closing and tokens.accept(closing):
            return message
        if tokens.kind == "end":
            if closing:
                raise tokens.error(f"a missing {closing!r}")
            return message
        if tokens.kind != "name":
            if not closing and tokens.text in ("}", ">"):
                return message
            raise tokens.error(f"{tokens.text[:40]!r} where a field's name should be")
        line = tokens.line
        name = tokens.take().strip("[]")
        values = message.fields.setdefault(name, [])
        colon = tokens.accept(":")
        if colon and tokens.accept("["):
            while not tokens.accept("]"):
                values.append(_value(tokens, depth))
                if not tokens.accept(",") and tokens.text != "]":
                    raise tokens.error("a missing ',' or ']'")
        elif colon or tokens.text in ("{", "<"):
            values.append(_value(tokens, depth))
        else:
            raise tokens.error("a missing ':' or '{'")
        lines = message.lines.setdefault(name, [])
        lines += [line] * (len(values) - len(lines))
        tokens.accept(",", ";")


def _value(tokens: _Tokens, depth: int) -> Message | str | int | float | bool:
    if tokens.accept("{"):
        return _fields(tokens, "}", depth + 1)
    if tokens.accept("<"):
        return _fields(tokens, ">", depth + 1)
    if tokens.kind == "string":
        parts = []
        while tokens.kind == "string":
            parts.append(_unescaped(tokens))
        return "".join(parts)
    if tokens.kind == "number":
        return _number(tokens)
    if tokens.kind == "name":
        word = tokens.take()
        if word.lstrip("-").lower() in ("inf", "infinity", "nan"):
            return float(word)
        return {"true": True, "false": False}.get(word, word)
    raise tokens.error(f"{tokens.text!r} where a value should be")


def _number(tokens: _Tokens) -> int | float:
    text = "".join(tokens.take().split())
    digits = text.lstrip("-")
    if len(text) > 400:  # Python refuses to read much longer ones
        raise tokens.error("a number of impossible length")
    if digits[:2].lower() == "0x":
        return int(text, 16)
    if digits.isdigit():
        return int(text)
    return float(text.rstrip("fF"))


def _unescaped(tokens: _Tokens) -> str:
    """The string's value; escapes may spell the bytes of UTF-8."""

    def octets(match: re.Match[str]) -> str:
        code = match[1]
        if code in _ESCAPES:
            return chr(_ESCAPES[code])
        if code[0] in "01234567":
            return chr(int(code, 8) & 0xFF)
        if code[0] in "xX" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code[0] in "uU" and len(code) > 1 and int(code[1:], 16) <= 0x10FFFF:
            return chr(int(code[1:], 16)).encode("utf-8", "surrogatepass").decode("latin-1")
        raise tokens.error(f"the unknown escape {match[0]!r}")

    inner = tokens.text[1:-1]
    raw = inner.encode("utf-8", "surrogatepass").decode("latin-1")
    text = _ESCAPE.sub(octets, raw).encode("latin-1").decode("utf-8", "replace")
    tokens.take()
    return text
