r"""ER7 escape sequences (HL7 v2.9.1 section 2.7):
`\F\ \S\ \T\ \R\ \E\ \P\ \Xdd..\ \Cxxyy\ \Mxxyyzz\ \.br\ \H\ \N\`.

Decoded once, after splitting. `\C..\` and `\M..\` switch to another character set of ISO 2022 (section 2.14.9): what
follows them is read as the bytes after that switch. An escape that is not known (`\Zxx\`, a Windows path) stays as it
was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

_SEQUENCE = r"([HN]|[FSTREP]|X(?:[0-9A-Fa-f]{2})+|\.[A-Za-z]{2}[+-]?\d*)"
_SWITCH = r"(?:C[0-9A-Fa-f]{4}|M[0-9A-Fa-f]{4}(?:[0-9A-Fa-f]{2})?)"
_ISO_2022 = ("iso2022_jp_ext", "iso2022_jp_2")  # the latter adds GB 2312, KS X 1001, Latin-1 and Greek
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
        self._switch = re.compile(mark + f"({_SWITCH})" + mark)

    def decode(self, text: str) -> str:
        """Text with every known sequence replaced; raises MessageError when `\\Xdd..\\` is not in the character set."""
        if self._escape not in text:
            return text
        decoded = self._switched(text) if self._switch.search(text) else text
        return self._pattern.sub(lambda match: self._replacement(match.group(0), match.group(1)), decoded)

    def _switched(self, text: str) -> str:
        """The text with its ISO 2022 switches carried out; as it was sent when no set we know has these bytes."""
        raw = self._switch.sub(lambda match: "\x1b" + bytes.fromhex(match.group(1)[1:]).decode("latin-1"), text)
        for codec in _ISO_2022 if raw.isascii() else ():
            try:
                return raw.encode("ascii").decode(codec)
            except UnicodeDecodeError:
                continue
        return text

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
        return text.translate(self._escaped)

    @cached_property
    def _escaped(self) -> dict[int, str]:
        sequences = {code: f"X{code:02X}" for code in range(ord(" "))}
        sequences |= {ord(character): letter for letter, character in self._characters.items()}
        return {code: f"{self._escape}{sequence}{self._escape}" for code, sequence in sequences.items()}
