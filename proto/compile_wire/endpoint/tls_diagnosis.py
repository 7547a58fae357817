"""Why a TLS connection to the daemon does not come about, in words that say what to do.

gRPC tells a caller little more than "unavailable". After it has failed, this tries the same handshake once more with
Python's own TLS, whose errors say what is wrong. No token is sent, and nothing that is learnt here is relied on: it
explains, and gRPC decides.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Cause = Literal["absent", "silent", "tls", "refused", "fine"]

# OpenSSL's numbers, which its Python module does not name.
_EXPIRED = 10
_NOT_YET_VALID = 9
_WRONG_HOST = (62, 64)

_FIRST_FRAME_BYTES = 9
"""An HTTP/2 server says its settings as soon as it has accepted a connection."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Says what is wrong with a TLS connection, by kind and in words."""

    cause: Cause
    """`absent`: nobody there; `silent`: nothing comes back; `tls`: the daemon's certificate, or our files; `refused`:
    our certificate; `fine`: nothing found."""
    text: str


def explain(
    host: str, port: int, *, authority: Path, certificate: Path | None, expires: float, timeout_s: float
) -> Finding:
    """Try a handshake with the daemon at `host`, within about `timeout_s`, and return what comes of it.

    `certificate` is the file with our key and certificate, if we have one; `expires` its end, 0 where it is not known.
    """
    import ssl  # not needed by a process whose connection stands

    where = f"{host}:{port}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=str(authority))
        if certificate is not None:
            context.load_cert_chain(str(certificate), password="")  # an encrypted key must not ask at the terminal
    except (OSError, ValueError) as error:
        return Finding("tls", f"the keys in {authority.parent} cannot be used ({error}): make them anew{_CLIENT}")
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as stream,
        ):
            heard = stream.recv(_FIRST_FRAME_BYTES)
    except ssl.SSLCertVerificationError as error:
        return Finding("tls", _about_server(where, host, error.verify_code))
    except ssl.SSLError as error:
        return Finding("tls", f"no TLS could be agreed on with {where} ({error.reason or error}): is it the daemon?")
    except ConnectionResetError:
        heard = b""  # as with an orderly end
    except (TimeoutError, socket.gaierror):
        return Finding("silent", f"nobody answers at {where} within {timeout_s:g} s")
    except OSError as error:
        return Finding("absent", f"no daemon at {where} ({error.strerror or error})")
    if heard:
        return Finding("fine", f"{where} answers, and its certificate is good")
    if certificate is None:
        ours = "it asks for a client certificate, and there is none here"
    elif 0 < expires <= time.time():
        ours = f"this client's certificate has ended on {time.strftime('%Y-%m-%d', time.gmtime(expires))}"
    else:
        ours = "it does not believe this client's certificate: made by another authority, or ended"
    return Finding("refused", f"the daemon at {where} hung up: {ours}; make one{_CLIENT}")


_CLIENT = " on its machine with `compiler-daemon keys client`"


def _about_server(where: str, host: str, code: int) -> str:
    if code == _EXPIRED:
        return f"the certificate of the daemon at {where} has expired: on its machine, `compiler-daemon keys rotate`"
    if code == _NOT_YET_VALID:
        return f"the certificate of the daemon at {where} is not valid yet: do both machines' clocks agree?"
    if code in _WRONG_HOST:
        return (
            f"the certificate of the daemon at {where} does not name {host}: "
            f"on its machine, `compiler-daemon keys rotate --host {host}`"
        )
    return (
        f"the daemon at {where} is none that this client knows: its certificate is of another authority; "
        f"make the client's directory anew{_CLIENT}"
    )
