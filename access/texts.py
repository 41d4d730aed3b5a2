"""Texts that people give to the control plane: one printable line, safe to store, to log and to show on a terminal."""

from __future__ import annotations


def one_line(what: str, text: str, *, chars_max: int, chars_min: int = 1) -> str:
    """`text` unchanged. Raises `ValueError` naming `what`; the text itself is not repeated."""
    if not chars_min <= len(text) <= chars_max or not text.isprintable():
        raise ValueError(f"the {what} must have {chars_min} to {chars_max} printable characters")
    return text
