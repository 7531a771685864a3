"""The text of a file whose encoding nobody told: what its bytes say for certain, one deliberate guess, or a refusal."""

from __future__ import annotations

import codecs
import re

from node.errors import ConfigError, InvalidLabel

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 (with a mark)"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16 (little-endian)"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16 (big-endian)"),
)
_WORKBOOK = b"PK\x03\x04"
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ufffe]")
# Of the bytes where Windows-1252 differs from Latin-1, only the euro sign, dots, quotes and dashes are taken for what
# they would be: in a file of letters the others are letters of another code page (DOS, Macintosh).
_ODD_BYTES = re.compile(rb"[\x81-\x84\x86-\x90\x98-\x9f]")
# No language of Windows-1252 has three accented letters in a row, and none has a sign such as a half within a word;
# words of Cyrillic, Greek, Central European or DOS code pages do.
_ODD_TEXT = re.compile(r"[À-ÖØ-öø-ÿ]{3}|(?<=[A-Za-z])[¡-©«-´¶¸¹»-¿×÷](?=[a-z])")
_REMEDY = "save it as UTF-8, or name its encoding"


def decode(content: bytes, encoding: str | None = None) -> tuple[str, str]:
    """The text of a file, and a name of the encoding for the report.

    Args:
        content: all of the file.
        encoding: what a person says it is; None: UTF-8 or UTF-16 by its mark, UTF-8 where it is valid, else
            Windows-1252 (which has Latin-1's letters) where nothing speaks against it.

    Raises:
        InvalidLabel: it cannot be told, or it is not text.
        ConfigError: no encoding has this name.
    """
    text, name = _named(content, encoding) if encoding else _told(content)
    if _CONTROLS.search(text):
        raise InvalidLabel(f"the file read as {name} holds control characters; {_REMEDY}")
    return text, name


def _named(content: bytes, encoding: str) -> tuple[str, str]:
    try:
        text = content.decode(encoding)
    except LookupError:
        raise ConfigError(
            f"encoding {encoding!r} is not known; give one such as utf-8, cp1252, utf-16"
        ) from None
    except UnicodeError:
        raise InvalidLabel(
            f"the file is not {encoding}; leave the encoding out, or give another"
        ) from None
    return text.removeprefix("\ufeff"), codecs.lookup(encoding).name


def _told(content: bytes) -> tuple[str, str]:
    if content.startswith(_WORKBOOK):
        raise InvalidLabel("the file is a workbook, not text; save it as CSV (UTF-8)")
    for mark, codec, name in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(codec), name
            except UnicodeDecodeError:
                raise InvalidLabel(
                    f"the file has the mark of {name} and is not; {_REMEDY}"
                ) from None
    if b"\0" in content:
        raise InvalidLabel(f"the file holds zero bytes (UTF-16 without a mark?); {_REMEDY}")
    try:
        return content.decode(), "UTF-8"
    except UnicodeDecodeError:
        pass
    text = content.decode("cp1252", errors="replace")
    if _ODD_BYTES.search(content) or _ODD_TEXT.search(text):
        raise InvalidLabel(f"the encoding of the file cannot be told; {_REMEDY}")
    return text, "Windows-1252 (guessed: no UTF-8)"
