"""Where servers on this machine listen."""

import re
import socket

import pytest

from shared.errors import ServiceError
from shared.ports import check_free, url


def test_an_address_of_ipv6_has_brackets():
    assert url("::1", 8000) == "http://[::1]:8000"
    assert url("127.0.0.1", 8000) == "http://127.0.0.1:8000"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_is_refused_while_another_process_has_it(host: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=re.escape(f"{url(host, port)} isn't one (Address already in use)")):
            check_free(host, port, "the server")
    check_free(host, 0, "the server")


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ServiceError, match=r"the server must .* but http://192.0.2.1:8000 isn't one \(Cannot assign"):
        check_free("192.0.2.1", 8000, "the server")
