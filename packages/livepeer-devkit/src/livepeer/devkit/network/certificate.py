"""The certificate an orchestrator signs for itself at every start (``server/cert.go``, v0.9.1)."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from .one_port import ALPN

__all__ = ["make_certificate", "server_context"]


def make_certificate(host: str) -> tuple[bytes, bytes]:
    """A new key and a certificate for it, as orchestrators make them.

    EC P-256, self-signed, an empty subject, and the alternative name ``DNS:<host>`` even when the host is an
    IP address: verifying the name fails although the key is right.

    Args:
        host: The host of the orchestrator's address.

    Returns:
        The certificate and its private key, both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    nobody = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(nobody)
        .issuer_name(nobody)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    )


def server_context(host: str) -> ssl.SSLContext:
    """A TLS 1.2+ context for a server with a certificate made just now."""
    certificate, key = make_certificate(host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    with tempfile.TemporaryDirectory(prefix="livepeer-") as folder:  # ssl reads keys from files only
        pem = Path(folder) / "orchestrator.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(certificate + key)
        context.load_cert_chain(pem)
    return context
