from collections.abc import Callable

import pytest

from gateways.testing import strategies


@pytest.mark.parametrize(
    "of_a_protocol",
    [
        strategies.conversations,
        strategies.broken_requests,
        strategies.broken_answers,
        strategies.server_end,
        strategies.client_end,
    ],
)
def test_a_protocol_that_there_is_not_is_answered_with_those_there_are(
    of_a_protocol: Callable[[str], object],
) -> None:
    with pytest.raises(ValueError, match="write one of FastCGI, SCGI, CGI"):
        of_a_protocol("nope")
