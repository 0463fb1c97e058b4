"""Each configuration file is accepted alone, as its server reads it, and is found in the README."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.interop import servers
from tests.interop.doors import DOORS, FOLDERS, WebServerDoor

NGINX = servers.nginx_files()
APACHE = servers.apache_files()
LIGHTTPD = servers.lighttpd_files()
FILES = [*NGINX, *APACHE, *LIGHTTPD]


def _run(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("file", NGINX, ids=lambda file: file.name)
def test_nginx_accepts_the_file_without_a_warning(file: Path, tmp_path: Path) -> None:
    servers.require("nginx", "openssl")
    if "ssl_certificate" in file.read_text():
        servers.make_certificates(tmp_path / "tls")
    main = servers.nginx_main(tmp_path, [file])
    status, said = _run([*servers.nginx_command(main), "-t"])
    assert status == 0, said
    assert "[warn]" not in said


@pytest.mark.parametrize("file", APACHE, ids=lambda file: file.name)
@pytest.mark.parametrize("mpm", ["mpm_event", "mpm_prefork"])
def test_apache_accepts_the_file_with_the_modules_that_it_names(
    file: Path, mpm: str, tmp_path: Path
) -> None:
    servers.require("apache")
    (tmp_path / "root").mkdir()
    main = servers.apache_main(tmp_path, [file], tmp_path, mpm)
    status, said = _run([*servers.apache_command(main), "-t"])
    assert (status, said) == (0, "Syntax OK\n")


@pytest.mark.parametrize("file", APACHE, ids=lambda file: file.name)
def test_without_its_module_the_file_says_which_to_enable(file: Path, tmp_path: Path) -> None:
    servers.require("apache")
    (tmp_path / "root").mkdir()
    main = servers.apache_main(tmp_path, [], tmp_path)
    with main.open("a") as text:
        text.write(f"Include {file}\n")
    status, said = _run([*servers.apache_command(main), "-t"])
    named = re.findall(r"(?m)^#\s+(a2enmod \w+)", file.read_text())
    assert status != 0
    assert f"{file.name} needs: {named[0]}" in said


def _program(root: Path) -> Path:
    """A folder with the program that lighttpd looks for, as www-data."""
    root.mkdir()
    root.parent.chmod(0o755)
    (root / "app.fcgi").touch(0o755)
    return root


@pytest.mark.parametrize("file", LIGHTTPD, ids=lambda file: file.name)
def test_lighttpd_accepts_the_file_without_a_warning(file: Path, short_path: Path) -> None:
    servers.require("lighttpd")
    _program(short_path / "root")
    main = servers.lighttpd_main(short_path, [file], short_path)
    assert _run([servers.program("lighttpd"), "-tt", "-f", str(main)]) == (0, "")


@pytest.mark.parametrize("file", LIGHTTPD, ids=lambda file: file.name)
def test_debian_s_own_lighttpd_conf_takes_the_file(file: Path, short_path: Path) -> None:
    servers.require("lighttpd")
    root = _program(short_path / "root")
    main = short_path / "lighttpd.conf"
    main.write_text(
        f'include "/etc/lighttpd/lighttpd.conf"\nvar.gateways_root = "{root}"\ninclude "{file}"\n'
    )
    assert _run([servers.program("lighttpd"), "-tt", "-f", str(main)]) == (0, "")


def test_no_two_files_listen_at_the_same_port() -> None:
    ports = Counter(port for file in FILES for port in servers.ports_of(file))
    assert ports
    assert [port for port, times in ports.items() if times > 1] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_README_of_the_folder_names_the_file(file: Path) -> None:
    assert f"`{file.name}`" in (file.parent / "README.md").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_behind_a_door_or_has_tests_of_its_own(file: Path) -> None:
    # Several sites need host names that the suite does not send; test_nginx.py has them.  Behind
    # cgihost.conf are scripts and no application; tests/cgihost/test_nginx.py has them.
    assert file.name in {door.file for door in DOORS} | {"fastcgi-sites.conf", "cgihost.conf"}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_a_door_asks_at_the_port_of_its_file(door: WebServerDoor) -> None:
    assert door.port in servers.ports_of(servers.REPOSITORY / FOLDERS[door.server] / door.file)


def test_the_set_up_script_lists_what_is_missing_and_nothing_else() -> None:
    script = str(servers.REPOSITORY / "tests" / "install-servers.sh")
    done = subprocess.run(["sh", script, "--check"], check=False, capture_output=True, text=True)
    assert done.returncode == (1 if done.stdout else 0)
    assert done.stderr == ""
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in done.stdout.split("\n")[:-1])
