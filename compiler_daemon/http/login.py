"""Logins to the page: the token, codes for one login and sessions decide who may read it.

Every user of the machine can connect to the loopback interface, so the page asks for what the daemon's other doors ask
for: the token, as `Authorization: Bearer TOKEN`. A browser gets a cookie instead, for a code that only the token buys
(`compiler-daemon page`): good once, for a minute. So the token never stands in an address, a history or a log.
Codes and cookies are kept as digests, in memory: a restart ends all sessions.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie

CODE_S = 60.0
SESSION_S = 12 * 3600.0
"""From the last look."""

_MAX_CODES = 16
_MAX_SESSIONS = 64
_SCHEME = b"Bearer "


class _Passes:
    """Issues random texts that are valid for a while. Where there are too many, the oldest goes."""

    def __init__(self, lasts_s: float, most: int) -> None:
        self._lasts_s = lasts_s
        self._most = most
        self._until: dict[bytes, float] = {}

    def make(self, now: float) -> str:
        """Return a new text, valid from now on."""
        text = secrets.token_urlsafe(32)
        self._until = {name: until for name, until in self._until.items() if until > now}
        while len(self._until) >= self._most:
            del self._until[min(self._until, key=self._until.__getitem__)]
        self._until[_name(text)] = now + self._lasts_s
        return text

    def take(self, text: str, now: float) -> bool:
        """Return whether the text is valid; it is not afterwards."""
        return self._until.pop(_name(text), 0.0) > now

    def renew(self, text: str, now: float) -> bool:
        """Return whether the text is valid; then it is for as long again."""
        name = _name(text)
        if self._until.get(name, 0.0) <= now:
            return False
        self._until[name] = now + self._lasts_s
        return True


class Access:
    """Decides which requests to the page of one daemon are allowed."""

    def __init__(self, is_token: Callable[[bytes], bool], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`is_token` tells in constant time whether a token opens the page now: tokens are recreated meanwhile."""
        self._is_token = is_token
        self._clock = clock
        self._codes = _Passes(CODE_S, _MAX_CODES)
        self._sessions = _Passes(SESSION_S, _MAX_SESSIONS)
        self.port = 0

    def make_code(self) -> str:
        """Return a code for one login; only for callers who have shown the token."""
        return self._codes.make(self._clock())

    def login(self, code: str) -> str | None:
        """Return the `Set-Cookie` of a new session; None where the code is not, or no longer, good."""
        if not self._codes.take(code, self._clock()):
            return None
        session = self._sessions.make(self._clock())
        return f"{self._cookie}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={SESSION_S:.0f}"

    def may_read(self, headers: Mapping[str, str]) -> bool:
        """Return whether these headers show the token, or a session."""
        given = headers.get("authorization", "").encode("utf-8", "replace")
        if given.startswith(_SCHEME) and self._is_token(given.removeprefix(_SCHEME)):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and self._sessions.renew(cookie.value, self._clock())

    @property
    def _cookie(self) -> str:
        # Cookies are not told apart by port: two daemons of one machine must not log each other's visitors out.
        return f"compiler_daemon_{self.port}"


def _name(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
