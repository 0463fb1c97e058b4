"""Fixtures for all tests: short socket paths, live servers, Hypothesis's profile."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

# The suite's checks are asserts in modules that are no test modules.
pytest.register_assert_rewrite(
    "tests.suite",
    "tests.doors",
    "tests.http_client",
    "tests.twins",
    "tests.bounds",
    "tests.cgihost.calling",
    "tests.server.live",
)

from tests.doors import LiveServer, live_server  # noqa: E402 (after the line above)

# A shell starts what runs in the background with SIGINT ignored, and every program that a test
# starts would inherit that: Ctrl-C could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Deterministic: a failure seen once is seen again, by everybody and in CI.  A search for new ones
# is `--hypothesis-profile=search`.
settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    max_examples=80,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "search", parent=settings.get_profile("deterministic"), derandomize=False, max_examples=2000
)
settings.load_profile("deterministic")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new folder whose path is short enough for unix sockets, which pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        yield Path(folder)


@pytest.fixture
def socket_path(short_path: Path) -> Path:
    """A path for a unix socket where nothing is yet."""
    return short_path / "app.sock"


ServerFactory = Callable[..., LiveServer]


@pytest.fixture
def serve() -> Iterator[ServerFactory]:
    """Start servers as `tests.doors.live_server` does, each in a folder of its own; all stop at the end."""
    with ExitStack() as stack:

        def start(*options: str, **how: object) -> LiveServer:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-"))
            server: AbstractContextManager[LiveServer] = live_server(Path(folder), *options, **how)  # type: ignore[arg-type]  # passed on as they came
            return stack.enter_context(server)

        yield start
