"""A folder for a shared host: what FTP loses, and silence about one that is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.doctor.conftest import codes, examine

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["fastcgi", "cgi"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "public_html"
    shutil.copytree(ROOT / "samples" / "shared-hosting" / "fastcgi", folder)
    if request.param == "cgi":
        (folder / "dispatch.fcgi").unlink()
        samples = ROOT / "samples" / "shared-hosting" / "cgi"
        shutil.copytree(samples, folder, dirs_exist_ok=True)
    ignore = shutil.ignore_patterns("__pycache__", "testing", "doctor")
    shutil.copytree(ROOT / "gateways", folder / "gateways", ignore=ignore)
    return folder


def program(site: Path) -> Path:
    (found,) = [path for path in site.iterdir() if path.name in ("dispatch.fcgi", "app.cgi")]
    return found


def test_a_whole_folder_is_met_with_silence(site: Path) -> None:
    report = examine(site)
    assert report.findings == []
    assert "line ends" in report.checked
    assert "the folder gateways/" in report.checked


def test_the_program_is_looked_at(site: Path) -> None:
    file = program(site)
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    file.chmod(0o644)
    assert codes(site) == ["not-executable", "crlf"]
    examine(site, fix=True)
    assert codes(site) == []


def test_a_hidden_file_that_was_not_uploaded_is_missed(site: Path) -> None:
    (site / ".htaccess").unlink()
    assert codes(site) == ["htaccess-missing"]


def test_a_package_that_was_cut_short_is_found(site: Path) -> None:
    (site / "gateways" / "environ.py").write_text("")
    shutil.rmtree(site / "gateways" / "server")
    report = examine(site)
    (finding,) = [each for each in report.findings if each.code == "package-incomplete"]
    assert "environ.py" in finding.seen
    assert "more" in finding.seen


def test_a_package_that_is_not_there_is_told(site: Path) -> None:
    shutil.rmtree(site / "gateways")
    report = examine(site)
    (finding,) = [each for each in report.findings if each.code == "package-incomplete"]
    assert finding.seen.endswith("gateways is not there")


def test_a_link_to_nowhere_in_the_package_holds_nothing(site: Path) -> None:
    (site / "gateways" / "another.py").symlink_to("/nonexistent/x.py")
    assert codes(site) == []
    (site / "gateways" / "environ.py").unlink()
    (site / "gateways" / "environ.py").symlink_to("/nonexistent/x.py")
    (finding,) = examine(site).findings
    assert finding.code == "package-incomplete"
    assert "lacks environ.py, or has nothing in them" in finding.seen


def test_any_other_folder_is_no_script(tmp_path: Path) -> None:
    assert codes(tmp_path) == ["not-a-file"]
