"""HTTPS with a certificate chain: what a client checks, and what the application sees."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.servers import Daemon

# curl's exit code for a certificate that it cannot verify.
UNVERIFIED = 60


@pytest.fixture
def authority(nginx: Path, daemon: Daemon) -> Path:
    """The root that clients of the running https.conf trust."""
    servers.require("curl", "openssl")
    daemon.with_options()
    return nginx / "tls" / "ca.pem"


def _curl(authority: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "-sS", "--max-time", "10", "--noproxy", "*", "--cacert", str(authority)]
    return subprocess.run([*command, *options, url], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_client_that_trusts_the_root_verifies_the_chain(authority: Path, host: str) -> None:
    done = _curl(authority, f"https://{host}:8443/path")
    assert (done.returncode, done.stderr) == (0, "")
    environ = json.loads(done.stdout)
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["HTTPS"] == "on"
    assert (environ["HTTP_HOST"], environ["SERVER_PORT"]) == (f"{host}:8443", "8443")


def test_a_client_that_trusts_another_root_refuses(authority: Path, tmp_path: Path) -> None:
    servers.make_certificates(tmp_path / "other")
    done = _curl(tmp_path / "other" / "ca.pem", "https://localhost:8443/")
    assert done.returncode == UNVERIFIED


def test_a_client_that_asks_for_another_name_refuses(authority: Path) -> None:
    done = _curl(
        authority, "https://other.example:8443/", "--resolve", "other.example:8443:127.0.0.1"
    )
    assert done.returncode == UNVERIFIED


def test_the_check_in_openssl_s_words_succeeds(authority: Path) -> None:
    command = "openssl s_client -connect 127.0.0.1:8443 -servername localhost -brief"
    command += f" -verify_return_error -CAfile {authority}"
    done = subprocess.run(
        command.split(), check=False, capture_output=True, text=True, input="", timeout=20
    )
    assert done.returncode == 0, done.stderr
    assert "Verification: OK" in done.stderr + done.stdout


def test_without_the_intermediate_the_server_s_certificate_is_not_verified(
    authority: Path,
) -> None:
    folder = authority.parent
    command = ["openssl", "verify", "-CAfile", str(authority)]
    chained = [*command, "-untrusted", str(folder / "chain.pem"), str(folder / "server.pem")]
    alone = [*command, str(folder / "server.pem")]
    assert subprocess.run(chained, check=False, capture_output=True).returncode == 0
    assert subprocess.run(alone, check=False, capture_output=True).returncode != 0


def test_the_certificate_holds_every_name_and_the_keys_are_private(tmp_path: Path) -> None:
    servers.require("openssl")
    folder = tmp_path / "tls"
    servers.make_certificates(folder, "www.one.example", "*.three.example", "::1", "10.0.0.7")
    command = ["openssl", "x509", "-in", str(folder / "server.pem"), "-noout"]
    shown = subprocess.run(
        [*command, "-ext", "subjectAltName"], check=True, capture_output=True, text=True
    ).stdout
    for name in ("DNS:www.one.example", "DNS:*.three.example", "0:0:0:0:0:0:0:1", "10.0.0.7"):
        assert name in shown
    assert {key.stat().st_mode & 0o777 for key in folder.glob("*.key")} == {0o600}


def test_certificates_that_exist_are_never_overwritten(tmp_path: Path) -> None:
    servers.require("openssl")
    servers.make_certificates(tmp_path / "tls")
    before = (tmp_path / "tls" / "ca.pem").read_bytes()
    with pytest.raises(subprocess.CalledProcessError) as refused:
        servers.make_certificates(tmp_path / "tls")
    assert "exists" in refused.value.stderr
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == before
