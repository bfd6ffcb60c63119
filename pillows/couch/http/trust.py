"""Find the certificates that the system trusts: requests brings its own, which no administrator maintains."""

from __future__ import annotations

import ssl
from pathlib import Path


def find_trusted_certificates(ca_bundle: Path | None = None) -> str | bool:
    """Return the file or folder of certificates to verify servers with, as requests takes it.

    Args:
        ca_bundle: configured, instead of the system's.

    Returns:
        Its path; True, for those that requests brings, on a system without any. The system's may be named by
        the variables of OpenSSL, `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    """
    if ca_bundle is not None:
        return str(ca_bundle)
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True
