from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from xiaozhi_trio.wire.token import TokenInvalid, TokenSigner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    RunCommand = Callable[..., Result]

MAC = "aa:bb:cc:dd:ee:ff"
DAY = 86_400


def signer(secret: str, *, days_later: float = 0) -> TokenSigner:
    return TokenSigner(
        secret=secret,
        lifetime_seconds=30 * DAY,
        clock=lambda: time.time() + days_later * DAY,
    )


@pytest.fixture
def configured(tmp_path: Path) -> str:
    (tmp_path / "config.toml").write_text(
        '[authentication]\nenabled = true\nsecret = "signing-secret"\n'
    )
    return "signing-secret"


def test_the_token_is_valid_for_the_device(run_command: RunCommand, configured: str) -> None:
    result = run_command("token", "AA-BB-CC-DD-EE-FF", "client")
    assert (result.exit_code, result.stderr) == (0, "")
    signer(configured).verify(result.stdout.strip(), "client", [MAC])
    signer(configured, days_later=29.9).verify(result.stdout.strip(), "client", [MAC])


def test_it_may_expire_earlier(run_command: RunCommand, configured: str) -> None:
    token = run_command("token", MAC, "client", "--days", "2").stdout.strip()
    signer(configured, days_later=1.9).verify(token, "client", [MAC])
    with pytest.raises(TokenInvalid, match="old"):
        signer(configured, days_later=2.1).verify(token, "client", [MAC])


def test_it_cannot_expire_later(run_command: RunCommand, configured: str) -> None:
    result = run_command("token", MAC, "client", "--days", "31")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: tokens are valid for 30 days, 31 were asked for; "
        "raise token_days in [authentication] and restart the server\n"
    )


@pytest.mark.parametrize("days", ["0", "-1", "soon"])
def test_days_are_a_positive_number(run_command: RunCommand, configured: str, days: str) -> None:
    assert run_command("token", MAC, "client", "--days", days).exit_code == 2


def test_a_device_has_a_proper_id(run_command: RunCommand, configured: str) -> None:
    result = run_command("token", "../x", "client")
    assert result.exit_code == 1
    assert "send a MAC address" in result.stderr


def test_without_a_secret_the_generated_one_signs(run_command: RunCommand, tmp_path: Path) -> None:
    result = run_command("token", MAC, "client")
    secret = (tmp_path / "state" / "token-secret").read_text().strip()
    signer(secret).verify(result.stdout.strip(), "client", [MAC])
    assert result.stderr.startswith("Authentication is off")


def test_a_secret_that_cannot_be_kept(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    result = run_command("token", MAC, "client")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "set [authentication] secret" in result.stderr
