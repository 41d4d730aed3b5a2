"""Certificates as a test needs them: a certificate authority of its own, and what it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, folder: Path) -> Path:
        """One PEM file of certificate and key."""
        file = folder / f"{self.certificate.serial_number}.pem"
        key = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(self.pem() + key)
        return file

    def context(self, folder: Path) -> ssl.SSLContext:
        """A server's. The files may go afterwards."""
        file = self.write(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority(name: str = "Test CA") -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Pair(built.sign(key, hashes.SHA256()), key)


def certificate(
    host: str,
    signer: Pair | None,
    *,
    not_before: dt.timedelta = -_DAY,
    not_after: dt.timedelta = _DAY,
) -> Pair:
    """For a name or an address, valid between two times from now. `signer` None: signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    built = (
        x509.CertificateBuilder()
        .subject_name(_name(host))
        .issuer_name(_name(host) if signer is None else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + not_before)
        .not_valid_after(now + not_after)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return Pair(built.sign(key if signer is None else signer.key, hashes.SHA256()), key)


def signed_with_sha1(host: str, signer: Pair, folder: Path) -> ssl.SSLContext:
    """A server's, made by the `openssl` command: cryptography refuses to. Raises `FileNotFoundError` where there is none."""
    ca = signer.write(folder)
    key, request, made = folder / "sha1.key", folder / "sha1.csr", folder / "sha1.pem"
    extensions = folder / "sha1.ext"
    extensions.write_text(f"subjectAltName=DNS:{host}\n")
    asked = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={host}"]
    signed = ["x509", "-req", "-sha1", "-days", "1", "-CA", str(ca), "-CAkey", str(ca), "-set_serial", "1", "-extfile", str(extensions)]
    for arguments in ([*asked, "-keyout", str(key), "-out", str(request)], [*signed, "-in", str(request), "-out", str(made)]):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(made, key)
    return context
