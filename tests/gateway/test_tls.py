from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trustme

from xiaozhi_trio.config.settings import ServerSettings
from xiaozhi_trio.gateway.tls import load_tls
from xiaozhi_trio.listener import CannotListen

if TYPE_CHECKING:
    from pathlib import Path


def test_tls_is_off_without_a_certificate() -> None:
    assert load_tls(ServerSettings()) is None


@pytest.mark.parametrize("given", ["tls_certificate", "tls_key"])
def test_half_of_a_certificate_is_told(given: str) -> None:
    with pytest.raises(CannotListen, match=rf"\[server\] {given} is set"):
        load_tls(attrs.evolve(ServerSettings(), **{given: "x.pem"}))


def test_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(CannotListen, match=r"missing\.pem"):
        load_tls(ServerSettings(tls_certificate=missing, tls_key=missing))
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    with pytest.raises(CannotListen, match=r"broken\.pem"):
        load_tls(ServerSettings(tls_certificate=str(broken), tls_key=str(broken)))


def test_certificate_is_loaded(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("example.org")
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    settings = ServerSettings(tls_certificate=str(certificate), tls_key=str(key))
    assert load_tls(settings) is not None
