"""X.509: the authority, the server's certificate, clients' certificates; made, and read for those who ask about them.

One of two modules that import `cryptography` (`tier.ed25519` is the other), and only `keys` and `doctor` import this
one: TLS itself is gRPC's. Keys are P-256 and never leave the machine in a log or a listing; certificates begin five
minutes ago, since clocks differ.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from compiler_daemon.errors import KeysError

_SKEW = datetime.timedelta(minutes=5)
_ALWAYS = ("localhost", "127.0.0.1", "::1")
"""Hosts that every server's certificate names: the daemon's own machine."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateView:
    """What may be told of a certificate."""

    subject: str
    issuer: str
    serial: str
    sha256: str
    """Of the certificate's DER, in hex."""
    hosts: tuple[str, ...]
    not_before: float
    not_after: float
    """Both in seconds since the epoch."""


def make_authority(days: int) -> Issued:
    """Return a new authority, with a name of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"compiler-daemon CA {secrets.token_hex(4)}", "authority")
    return Issued(_authority(name, key.public_key(), name, key, _end(days)), _pem_of(key))


def cross_sign(new: bytes, old: Issued, until: float) -> bytes:
    """Return the new authority's certificate signed by the old one's key: who knows only the old believes the new."""
    certificate = _certificate(new)
    end = datetime.datetime.fromtimestamp(until, datetime.UTC)
    signer = _key(old.key)
    return _authority(certificate.subject, _public(certificate), _certificate(old.certificate).subject, signer, end)


def issue_server(authority: Issued, hosts: Sequence[str], days: int) -> Issued:
    """Return a certificate for the daemon at these hosts and on its own machine."""
    names = list(dict.fromkeys((*_ALWAYS, *hosts)))
    alternative = x509.SubjectAlternativeName([_general_name(host) for host in names])
    return _issue(authority, _name("compiler-daemon", "server"), ExtendedKeyUsageOID.SERVER_AUTH, days, alternative)


def issue_client(authority: Issued, name: str, role: str, days: int) -> Issued:
    """Return a certificate for a client. Its role is written in for people; the daemon asks its own register."""
    return _issue(authority, _name(name, role), ExtendedKeyUsageOID.CLIENT_AUTH, days, None)


def read_certificate(pem: bytes) -> CertificateView:
    """Describe the first certificate in `pem`; raise `KeysError` where there is none."""
    certificate = _certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))
    except x509.ExtensionNotFound:
        hosts = ()
    return CertificateView(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        hosts=hosts,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def key_fits(certificate: bytes, key: bytes) -> bool:
    """Whether the key is the certificate's; raises `KeysError` where either cannot be read."""
    return _public(_certificate(certificate)).public_numbers() == _key(key).public_key().public_numbers()


def was_issued_by(certificate: bytes, authority: bytes) -> bool:
    """Whether the authority signed the certificate; raises `KeysError` where either cannot be read."""
    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def end_of(days: int) -> float:
    """Return the moment so many days from now, in seconds since the epoch."""
    return _end(days).timestamp()


def _issue(
    authority: Issued,
    subject: x509.Name,
    usage: x509.ObjectIdentifier,
    days: int,
    alternative: x509.SubjectAlternativeName | None,
) -> Issued:
    issuer, signer = _certificate(authority.certificate), _key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    # Nothing outlives its authority: a chain with an end in the middle is refused in words that nobody understands.
    end = min(_end(days), issuer.not_valid_after_utc)
    builder = _builder(subject, issuer.subject, key.public_key(), signer, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if alternative is not None:
        builder = builder.add_extension(alternative, critical=False)
    return Issued(_pem(builder.sign(signer, hashes.SHA256())), _pem_of(key))


def _authority(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    end: datetime.datetime,
) -> bytes:
    builder = _builder(subject, issuer, key, signer, end)
    # One authority may stand between: the new one, cross-signed by the old.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(_key_usage(signs=True), critical=True)
    return _pem(builder.sign(signer, hashes.SHA256()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(_now(), end) - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise KeysError(f"{host!r} is no host's name: write it as in an address, without a port") from error


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise KeysError(
            f"a certificate cannot be read ({error}): `compiler-daemon keys rotate` makes it anew"
        ) from error


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise KeysError("a private key cannot be read: `compiler-daemon keys rotate` makes it anew") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeysError("a private key is not of the kind that `compiler-daemon keys` makes (an elliptic curve's)")
    return key


def _public(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    return cast("ec.EllipticCurvePublicKey", certificate.public_key())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _end(days: int) -> datetime.datetime:
    return _now() + datetime.timedelta(days=days)
