"""The demo as a visitor meets it: a real browser on the guestbook, through the whole chain.

The build machine runs `make demo` in a fresh copy of the project, which makes its environment from
nothing and needs the network for that; elsewhere it is the command that `make demo` ends with, out
of the environment at hand.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

ROOT = Path(__file__).resolve().parent.parent
CI = bool(os.environ.get("CI"))
SECONDS = 20.0
FLAGS = [
    "--headless",
    "--no-sandbox",  # Chromium's sandbox refuses to run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers often have 64 MiB of it
]

pytestmark = [
    pytest.mark.browser,
    # Making an environment from nothing, on a slow network.
    pytest.mark.timeout(300),
]


class Demo:
    """A running demo, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._arrived.put(line)
        self._arrived.put(None)

    def wait_for(self, pattern: str, seconds: float) -> str:
        """The first thing printed that fits the pattern."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no {pattern} in:\n{''.join(self.lines)}"
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found[0]

    def stop(self) -> None:
        """As Ctrl-C does: the signal goes to everything that was started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture(scope="module", params=["auto", "builtin"])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """Behind nginx where there is one, as `make demo` chooses, and behind the built-in front."""
    folder = tmp_path_factory.mktemp("demo") / "gateways"
    ignore = shutil.ignore_patterns("__pycache__", "instance")
    for name in ("gateways", "samples", ".ci"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    scripts = Path(sys.executable).parent
    command = [str(scripts / "gateways"), "demo", "samples/guestbook/app.py"]
    command += ["--port", "0", "--front", request.param]
    if CI and request.param == "auto":
        command = ["make", f"PYTHON={sys.executable}", "PORT=0", "demo"]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GUESTBOOK_", "MAKE", "PYTHON"))
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=kept | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    running = Demo(process)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def url(demo: Demo) -> str:
    return demo.wait_for(r"http://[\w.:\[\]]+/?", 240).rstrip("/")


def browser_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def open_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser, driver = browser_path(), shutil.which("chromedriver")
    if browser is None or driver is None:
        if CI:
            pytest.fail("Chromium or its driver is not installed (tests/install-servers.sh)")
        pytest.skip("Chromium or its driver is not installed")  # a machine of somebody's own
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    profile = tmp_path_factory.mktemp("profile")
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


@pytest.fixture
def browser(open_browser: webdriver.Chrome, url: str) -> webdriver.Chrome:
    open_browser.get(url)
    return open_browser


def sign(browser: webdriver.Chrome, name: str, message: str, file: Path | None = None) -> None:
    """Fill in the form and send it, and wait for the page that comes after."""
    browser.find_element(By.ID, "name").send_keys(name)
    browser.find_element(By.ID, "message").send_keys(message)
    if file is not None:
        browser.find_element(By.ID, "file").send_keys(str(file))
    browser.find_element(By.CSS_SELECTOR, "form button").click()
    waiting = WebDriverWait(browser, SECONDS)
    waiting.until(lambda each: "#entry-" in each.current_url, "no page came after the form")


def text_of_entries(browser: webdriver.Chrome) -> str:
    # In one question to the browser: a page that is just leaving would make an element stale.
    script = "return document.getElementById('entries')?.innerText ?? ''"
    return str(browser.execute_script(script))


def wait_for_entry(browser: webdriver.Chrome, text: str) -> None:
    waiting = WebDriverWait(browser, SECONDS)
    waiting.until(lambda each: text in text_of_entries(each), f"{text} did not appear")


def test_an_entry_signed_in_the_browser_is_shown(browser: webdriver.Chrome, url: str) -> None:
    sign(browser, "Ada Lovelace", "The engine weaves <b>patterns</b>.")
    wait_for_entry(browser, "The engine weaves <b>patterns</b>.")
    assert "Ada Lovelace" in text_of_entries(browser)
    assert re.search(r"#entry-\d+$", browser.current_url)
    assert browser.current_url.startswith(url)


def test_an_entry_of_somebody_else_appears_without_a_reload(
    browser: webdriver.Chrome, url: str
) -> None:
    browser.execute_script("window.loaded = 'once'")
    watching = browser.current_window_handle
    browser.switch_to.new_window("window")
    try:
        browser.get(url)
        sign(browser, "Grace Hopper", "From another window")
        wait_for_entry(browser, "From another window")
    finally:
        browser.close()
        browser.switch_to.window(watching)
    wait_for_entry(browser, "From another window")
    assert browser.execute_script("return window.loaded") == "once"


def test_a_file_chosen_in_the_browser_can_be_fetched_again(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    file = tmp_path / "numbers.bin"
    file.write_bytes(bytes(range(256)) * 2000)
    sign(browser, "Zoë", "With a file", file)
    wait_for_entry(browser, "numbers.bin")
    link = browser.find_element(By.LINK_TEXT, "numbers.bin").get_attribute("href")
    assert link is not None
    with urllib.request.urlopen(link, timeout=SECONDS) as answer:
        assert answer.read() == file.read_bytes()


def test_the_browser_finds_nothing_to_complain_about(browser: webdriver.Chrome, url: str) -> None:
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types there
    for path in ("/", "/about"):
        browser.get(url + path)
        assert browser.find_elements(By.TAG_NAME, "h1")
    complaints = browser.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types there
    assert complaints == []


def test_the_demo_says_what_is_in_front_and_shows_a_first_answer(demo: Demo, url: str) -> None:
    if not any("GET /" in line for line in demo.lines):
        demo.wait_for("GET /", SECONDS)
    assert "200 OK" in demo.lines[-1]
    assert any("FastCGI  →  samples/guestbook/app.py" in line for line in demo.lines)
