r"""ER7 escape sequences (HL7 v2.9.1 section 2.7): `\F\ \S\ \T\ \R\ \E\ \P\ \Xdd..\ \.br\ \H\ \N\`.

Decoded once, after splitting. An escape that is not known (`\Zxx\`, a Windows path) stays as it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_SEQUENCE = r"([HN]|[FSTREP]|X(?:[0-9A-Fa-f]{2})+|\.[A-Za-z]{2}[+-]?\d*)"
_LINE_BREAKS = {".br": "\n", ".sp": "\n", ".ce": "\n"}


class Escapes:
    """Decoder and encoder for one set of delimiters.

    `delimiters` maps the escape letters F, S, T, R, E, P to their characters (E must be there); `decode_hex` turns the
    bytes of `\\Xdd..\\` into text: it knows the character set of the message.
    """

    def __init__(self, delimiters: dict[str, str], decode_hex: Callable[[bytes], str]) -> None:
        self._escape = delimiters["E"]
        self._characters = delimiters
        self._decode_hex = decode_hex
        mark = re.escape(self._escape)
        self._pattern = re.compile(mark + _SEQUENCE + mark)
        self._letters = {character: letter for letter, character in self._characters.items()}

    def decode(self, text: str) -> str:
        """Text with every known sequence replaced; raises MessageError when `\\Xdd..\\` is not in the character set."""
        if self._escape not in text:
            return text
        return self._pattern.sub(lambda match: self._replacement(match.group(0), match.group(1)), text)

    def _replacement(self, whole: str, sequence: str) -> str:
        if sequence in "HN":
            return ""
        if sequence.startswith("X"):
            return self._decode_hex(bytes.fromhex(sequence[1:]).replace(b"\x00", b""))
        if sequence.startswith("."):
            command, count = sequence[:3].lower(), sequence[3:]
            breaks = _LINE_BREAKS.get(command)
            return breaks * min(int(count or 1), 80) if breaks and not count.startswith("-") else whole
        return self._characters.get(sequence, whole)

    def encode(self, text: str) -> str:
        """Text fit for a component: delimiters and control characters escaped."""
        return "".join(map(self._encode_character, text))

    def _encode_character(self, character: str) -> str:
        if letter := self._letters.get(character):
            return f"{self._escape}{letter}{self._escape}"
        if character < " ":
            return f"{self._escape}X{ord(character):02X}{self._escape}"
        return character
