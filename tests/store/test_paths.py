from __future__ import annotations

from pathlib import Path

import attrs

from xiaozhi_trio.config.settings import Settings, StateSettings
from xiaozhi_trio.store.paths import state_directory
from xiaozhi_trio.store.secret import state_folder

CONFIGURED = attrs.evolve(Settings(), state=StateSettings(directory="/configured"))


def test_the_configuration_comes_first() -> None:
    environment = {"XIAOZHI_TRIO_STATE": "/named"}
    assert state_directory(CONFIGURED, environment=environment) == Path("/configured")


def test_then_the_environment() -> None:
    environment = {"XIAOZHI_TRIO_STATE": "/named"}
    assert state_directory(Settings(), environment=environment) == Path("/named")


def test_then_the_users_own_folder() -> None:
    assert state_directory(Settings(), environment={}) == state_folder("")
