"""A certificate for 127.0.0.1 that signs itself."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path, *, days: int = 30) -> tuple[Path, Path]:
    """Make a certificate for some days, and its key, which only its owner may read."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    subject = [
        "-days",
        str(days),
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
    ]
    subprocess.run(
        [*command, *subject, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    key.chmod(0o600)
    return cert, key
