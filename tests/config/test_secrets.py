from __future__ import annotations

from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.config.secrets import secret_values
from xiaozhi_trio.config.settings import Settings


def test_the_defaults_have_none() -> None:
    assert list(secret_values(Settings())) == []


def test_every_secret_is_found() -> None:
    document = """
        [authentication]
        secret = "signing"
        [llm.openai]
        api_key = "for-llm"
        model = "not-secret"
        extra = { password = "in-extra" }
        [tts.mine]
        voice = "not-secret"
        [tts.mine.account]
        secret-key = "deep"
        token = ""
        password = 5
    """
    settings = parse_settings(document, file="c.toml", environment={})
    assert sorted(secret_values(settings)) == ["deep", "for-llm", "in-extra", "signing"]
