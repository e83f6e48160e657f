from __future__ import annotations

import json

from xiaozhi_trio.config.disclosure import disclosed
from xiaozhi_trio.config.loader import parse_settings

TEXT = """
[authentication]
secret = "hidden-for-its-facts"

[llm.openai]
api_key = "hidden-key"

[asr.mine]
api_token = "hidden-for-its-name"
plain = [1, 2]

[asr.mine.deeper]
password = "hidden-deeper"
"""


def test_settings_are_shown_without_secrets() -> None:
    settings = parse_settings(TEXT, file="c.toml", environment={})
    shown = disclosed(settings)
    text = json.dumps(shown)
    assert "hidden" not in text
    assert shown["authentication"]["secret"] == "***"
    assert shown["asr"]["others"]["mine"] == {
        "api_token": "***",
        "plain": [1, 2],
        "deeper": {"password": "***"},
    }
    assert shown["tts"]["openai"]["api_key"] == ""
    assert shown["server"]["trusted_proxies"] == []
