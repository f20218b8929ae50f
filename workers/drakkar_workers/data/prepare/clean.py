"""What becomes of a text before it is learned: pure functions of the text."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
_TRAILING = re.compile(r"[ \t]+\n")
_BLANK_LINES = re.compile(r"\n{3,}")
_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))


def normalise(text: str) -> str:
    """NFC, lines that end with \\n, no control characters, no space at line ends, at most one blank
    line in a row."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _TRAILING.sub("\n", _CONTROL.sub("", text) + "\n")
    return _BLANK_LINES.sub("\n\n", text).strip("\n ")


def gopher(text: str) -> str | None:
    """The first of Gopher's rules for web text (Rae et al., arXiv 2112.11446, table A1) that a text
    breaks, or None. They are made for English prose."""
    words = text.split()
    lines = [line for line in text.split("\n") if line.strip()]
    if not 50 <= len(words) <= 100_000:
        return "words"
    if not 3 <= sum(map(len, words)) / len(words) <= 10:
        return "wordLength"
    if (text.count("#") + text.count("...") + text.count("…")) / len(words) > 0.1:
        return "symbols"
    if sum(line.lstrip().startswith(("-", "*", "•")) for line in lines) / len(lines) > 0.9:
        return "bullets"
    if sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines) > 0.3:
        return "ellipses"
    if sum(any(map(str.isalpha, word)) for word in words) / len(words) < 0.8:
        return "letters"
    if len(_STOP_WORDS & {word.lower() for word in words}) < 2:
        return "stopWords"
    if sum(count for count in Counter(lines).values() if count > 1) / len(lines) > 0.3:
        return "repeatedLines"
    return None


def _luhn(match: re.Match[str]) -> bool:
    digits = [int(c) for c in match[0] if c.isdigit()]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _address(match: re.Match[str]) -> bool:
    return all(int(part) < 256 for part in match[0].split("."))


_PII: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]] = {
    "email": (
        re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),
        lambda _: True,
    ),
    "card": (re.compile(r"\b\d(?:[ -]?\d){12,18}\b"), _luhn),
    "ip": (re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"), _address),
    "phone": (
        re.compile(r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w.])"),
        lambda _: True,
    ),
}


def mask_pii(text: str) -> tuple[str, dict[str, int]]:
    """Mail addresses, cards (by their checksum), IPv4 addresses and telephone numbers as ``<EMAIL>``
    and the like; how many of each. Names and postal addresses are not found."""
    counts: dict[str, int] = {}
    for kind, (pattern, is_one) in _PII.items():
        pieces, end = [], 0
        for match in pattern.finditer(text):
            if is_one(match):
                pieces += [text[end : match.start()], f"<{kind.upper()}>"]
                end = match.end()
        if pieces:
            counts[kind] = len(pieces) // 2
            text = "".join([*pieces, text[end:]])
    return text, counts
