"""A browser's session: the user's token, sealed in a cookie that only this server can open."""

import base64
import hashlib
import hmac
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

COOKIE: Final = "drakkar-session"
SECURE_COOKIE: Final = "__Host-drakkar-session"
"""Browsers take this name only over HTTPS, for this host alone."""
LIFETIME_SECONDS: Final = 12 * 3600


class Sessions:
    """Seals tokens. The token's own end still counts: it is reviewed again and again."""

    def __init__(self, key: bytes) -> None:
        def derive(purpose: bytes) -> bytes:
            return hmac.digest(key, purpose, "sha256")

        self._box = Fernet(base64.urlsafe_b64encode(derive(b"seal")))
        self._csrf_key = derive(b"csrf")

    @classmethod
    def from_file(cls, path: str | None) -> "Sessions":
        """With the key in a file, else one that is drawn now."""
        return cls(Path(path).read_bytes().strip() if path else os.urandom(32))

    def seal(self, token: str) -> str:
        """The cookie's value."""
        return self._box.encrypt(token.encode()).decode()

    def open(self, cookie: str) -> str | None:
        """The token in a cookie; None if it is not ours or too old."""
        try:
            return self._box.decrypt(cookie.encode(), ttl=LIFETIME_SECONDS).decode()
        except (InvalidToken, ValueError):
            return None

    def end_of(self, cookie: str) -> datetime | None:
        """When the cookie is too old; None if it is not ours."""
        try:
            begun = self._box.extract_timestamp(cookie.encode())
        except (InvalidToken, ValueError):
            return None
        return datetime.fromtimestamp(begun + LIFETIME_SECONDS, UTC)

    def csrf(self, cookie: str) -> str:
        """What a page of this session sends along with every change."""
        return hmac.new(self._csrf_key, cookie.encode(), hashlib.sha256).hexdigest()

    def csrf_matches(self, cookie: str, sent: str) -> bool:
        """Whether a change comes from a page of this session."""
        return hmac.compare_digest(self.csrf(cookie).encode(), sent.encode())
