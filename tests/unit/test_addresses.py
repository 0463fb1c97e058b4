from __future__ import annotations

import pytest

from gateways.addresses import MAX_UNIX_PATH, PROTOCOLS, Address, parse, split_url
from gateways.errors import ConfigurationError

MEANT = [
    ("fcgi://127.0.0.1:9000", Address("fcgi", "tcp", host="127.0.0.1", port=9000)),
    ("scgi://localhost:4000", Address("scgi", "tcp", host="localhost", port=4000)),
    ("ajp://app.example:8009", Address("ajp", "tcp", host="app.example", port=8009)),
    ("uwsgi://0.0.0.0:3031", Address("uwsgi", "tcp", host="0.0.0.0", port=3031)),
    ("http://127.0.0.1:0", Address("http", "tcp", host="127.0.0.1", port=0)),
    ("fcgi://[::1]:9000", Address("fcgi", "tcp", host="::1", port=9000)),
    ("fcgi+unix:/run/app.sock", Address("fcgi", "unix", path="/run/app.sock")),
    ("scgi+unix:app.sock", Address("scgi", "unix", path="app.sock")),
    ("fcgi+unix:/run/a:b/ä.sock", Address("fcgi", "unix", path="/run/a:b/ä.sock")),
    ("scgi+fd:3", Address("scgi", "fd", fd=3)),
    ("127.0.0.1:9000", Address("fcgi", "tcp", host="127.0.0.1", port=9000)),
    ("localhost:9000", Address("fcgi", "tcp", host="localhost", port=9000)),
    ("[::1]:9000", Address("fcgi", "tcp", host="::1", port=9000)),
    ("unix:/run/app.sock", Address("fcgi", "unix", path="/run/app.sock")),
    ("/run/app.sock", Address("fcgi", "unix", path="/run/app.sock")),
]


@pytest.mark.parametrize(("text", "address"), MEANT)
def test_each_written_form_means_one_address(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(("text", "address"), MEANT)
def test_the_canonical_text_means_the_same_address(text: str, address: Address) -> None:
    canonical = str(parse(text))
    assert parse(canonical, default_protocol="http") == address
    assert str(parse(canonical)) == canonical


def test_the_default_protocol_is_that_of_addresses_without_a_scheme() -> None:
    assert str(parse("127.0.0.1:4000", default_protocol="scgi")) == "scgi://127.0.0.1:4000"
    assert str(parse("/run/a.sock", default_protocol="scgi")) == "scgi+unix:/run/a.sock"
    assert parse("fcgi+fd:0", default_protocol="scgi").protocol == "fcgi"


def test_an_ipv6_address_has_one_canonical_spelling() -> None:
    assert str(parse("fcgi://[0:0::1]:9000")) == "fcgi://[::1]:9000"


def test_equal_addresses_are_one_key_and_different_ones_two() -> None:
    assert len({parse("localhost:9000"), parse("fcgi://localhost:9000")}) == 1
    assert parse("fcgi://localhost:9000") != parse("scgi://localhost:9000")
    assert parse("/run/a.sock") != "fcgi+unix:/run/a.sock"


def test_the_repr_shows_the_canonical_text() -> None:
    assert repr(parse("/run/a.sock")) == "<Address fcgi+unix:/run/a.sock>"


REFUSED = [
    ("", "fcgi://127.0.0.1:9000"),
    ("9000", '"127.0.0.1:9000"'),
    (":9000", '"127.0.0.1:9000"'),
    ("fcgi://:9000", '"fcgi://127.0.0.1:9000"'),
    ("localhost", "has no port"),
    ("fcgi://[::1]", "has no port"),
    ("fcgi://localhost:", "not a number from 0 to 65535"),
    ("localhost:65536", "not a number from 0 to 65535"),
    ("localhost:-1", "not a number from 0 to 65535"),
    ("localhost:90_0", "not a number from 0 to 65535"),
    ("localhost:٩٠٠٠", "not a number from 0 to 65535"),
    ("::1:9000", 'in brackets, as in "[::1]:9000"'),
    ("[::g]:9000", "not an IPv6 address"),
    ("127.0.0.256:9000", "not an IPv4 address"),
    ("127.1:9000", "not an IPv4 address"),
    ("user@localhost:9000", "neither a name nor an IP address"),
    ("fcgi://localhost:9000/", "end it there"),
    ("run/app.sock", 'write "unix:run/app.sock"'),
    ("./app.sock", 'write "unix:./app.sock"'),
    ("../app.sock", 'write "unix:../app.sock"'),
    ("app.sock", '"unix:./app.sock"'),
    ("tcp://127.0.0.1:9000", "write fcgi or scgi, as in"),
    ("fastcgi://localhost:9000", "write fcgi or scgi, as in"),
    ("https+unix:/run/app.sock", "write fcgi or scgi, as in"),
    ("fcgi+tcp:localhost:9000", "write fcgi or scgi, as in"),
    ("FCGI://localhost:9000", "write fcgi or scgi, as in"),
    ("fcgi+unix:", "names no path"),
    ("fcgi+unix:///run/app.sock", '"fcgi+unix:/run/app.sock"'),
    ("fcgi+unix://run/app.sock", '"fcgi+unix:/run/app.sock"'),
    ("unix:@app", "abstract namespace"),
    ("fcgi+unix:/run/my app.sock", "choose a path without spaces"),
    ("fcgi+unix:/run/app\0.sock", "control character"),
    ("fcgi+unix:/run/app\udce4.sock", "is not UTF-8 text"),
    ("fcgi+fd:", '"fcgi+fd:0"'),
    ("scgi+fd:-1", '"scgi+fd:0"'),
    ("scgi+fd:2147483648", '"scgi+fd:0"'),
]


@pytest.mark.parametrize(("text", "remedy"), REFUSED)
def test_what_is_no_address_is_refused_in_one_line_with_the_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    message = str(caught.value)
    assert remedy in message
    assert "\n" not in message


def test_a_port_alone_is_recommended_for_this_machine_and_for_nobody_else() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(":9102")
    assert '"127.0.0.1:9102"' in str(caught.value)
    assert "0.0.0.0" not in str(caught.value)


def test_a_unix_path_may_be_as_long_as_the_kernel_takes_and_not_a_byte_more() -> None:
    longest = "/" + "a" * (MAX_UNIX_PATH - 1)
    assert parse(longest).path == longest
    with pytest.raises(ConfigurationError, match="is 108 bytes"):
        parse(longest + "a")


def test_the_length_of_a_unix_path_is_counted_in_bytes() -> None:
    with pytest.raises(ConfigurationError, match="is 121 bytes"):
        parse("/" + "ä" * 60)


@pytest.mark.parametrize(
    ("url", "address", "target"),
    [
        ("fcgi://127.0.0.1:9000/greet?name=Ada", "fcgi://127.0.0.1:9000", "/greet?name=Ada"),
        ("127.0.0.1:9000/greet", "fcgi://127.0.0.1:9000", "/greet"),
        ("scgi://127.0.0.1:4000", "scgi://127.0.0.1:4000", "/"),
        ("scgi://127.0.0.1:4000?x=/", "scgi://127.0.0.1:4000", "/?x=/"),
        ("fcgi://[::1]:9000/a%2Fb//c", "fcgi://[::1]:9000", "/a%2Fb//c"),
        ("fcgi://localhost:9000/page?x=1#part", "fcgi://localhost:9000", "/page?x=1"),
        ("fcgi://localhost:9000/go?to=scgi://x", "fcgi://localhost:9000", "/go?to=scgi://x"),
        ("fcgi+unix:/run/app.sock", "fcgi+unix:/run/app.sock", "/"),
        ("unix:/run/app.sock", "fcgi+unix:/run/app.sock", "/"),
        ("/run/app.sock", "fcgi+unix:/run/app.sock", "/"),
        ("scgi+fd:5", "scgi+fd:5", "/"),
    ],
)
def test_a_url_is_an_address_and_a_request_target(url: str, address: str, target: str) -> None:
    assert split_url(url) == (parse(address), target)


def test_a_url_whose_address_is_wrong_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no port"):
        split_url("fcgi://localhost/greet")


def test_a_url_that_is_the_path_of_a_socket_file_says_how_to_write_it() -> None:
    with pytest.raises(ConfigurationError, match=r'write "unix:\./app\.sock"'):
        split_url("./app.sock")


def test_every_protocol_has_every_form() -> None:
    for protocol in PROTOCOLS:
        for form in ("://[::1]:1", "+unix:/a", "+fd:1"):
            assert str(parse(protocol + form)) == protocol + form
