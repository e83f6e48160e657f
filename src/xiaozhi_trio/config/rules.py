"""What a type, bounds and choices cannot say of a setting.

Field rules look at one value; section rules at several of one section, and are
asked only when each of those values is right by itself.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xiaozhi_trio.config.device_patterns import ANYTHING
from xiaozhi_trio.config.engines import (
    BilingualSettings,
    LanguageModelSettings,
    OpenAiLanguageModelSettings,
    OpenAiRecognizerSettings,
    OpenAiSynthesizerSettings,
    RecognizerSettings,
    SynthesizerSettings,
)
from xiaozhi_trio.config.settings import (
    AgentSettings,
    ListeningSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
)
from xiaozhi_trio.config.values import SettingError, toml_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MODEL_SOURCES = ("hub", "registry")
_SHORTEST_READ_TOKEN = 16
"""Characters."""
_LONGEST_NAME = 64
"""Characters, of an agent's name and of a device id (`wire.device_id`)."""
_DEVICES = re.compile(r"[A-Za-z0-9._:*-]+")
_MAC_OTHERWISE = re.compile(r"[0-9a-f]{12}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}", re.IGNORECASE)
"""Spellings of a MAC address that the handshake replaces, so that no device id has them."""
_DEVICES_EXAMPLE = 'for example devices = ["aa:bb:cc:dd:ee:01", "aa:bb:cc:*"]'


def _websocket_path(path: str) -> None:
    # Firmware takes the first colon of the address for the port's (esp-ml307, web_socket.cc).
    if not path.startswith("/") or not _is_plain(path) or set(path) & set(":?#"):
        raise SettingError(
            f"came {toml_of(path)}, expected a path that starts with / and has no :, ?, # or space",
            'for example websocket_path = "/xiaozhi/v1/"',
        )


def _websocket_url(url: str) -> None:
    if not url:
        return
    # Firmware takes the first colon for the port's and cannot read IPv6 literals; without
    # a path it misreads what follows the host (esp-ml307, web_socket.cc).
    host, slash, path = url.partition("://")[2].partition("/")
    if not _is_url(url, ("ws", "wss")) or not slash or "?" in host or ":" in path:
        raise SettingError(
            f"came {_shown_url(url)}, expected ws://host:port/path or wss://host:port/path, "
            "as firmware reads it: a name or IPv4 address, a path, no further colon",
            'for example websocket_url = "ws://192.168.1.10:8000/xiaozhi/v1/"',
        )


def _http_url(url: str) -> None:
    if url and not _is_url(url, ("http", "https")):
        raise SettingError(
            f"came {_shown_url(url)}, expected http://host:port or https://host:port",
            'for example http_url = "http://192.168.1.10:8003"',
        )


def _base_url(url: str) -> None:
    if not _is_url(url, ("http", "https"), literals=True):
        raise SettingError(
            f"came {_shown_url(url)}, expected the http:// or https:// address of an API",
            'for example base_url = "http://127.0.0.1:11434/v1"',
        )


def _api_key(key: str) -> None:
    if not _is_plain(key):
        raise SettingError(
            "came a hidden text that cannot be a key: it has spaces, line breaks or "
            "characters other than ASCII",
            "replace the placeholder with the key itself, or empty it where none is needed",
        )


def _sources(sources: tuple[str, ...]) -> None:
    unknown = [source for source in sources if source not in MODEL_SOURCES]
    if unknown:
        raise SettingError(
            f"came {toml_of(sources)}, expected some of {toml_of(MODEL_SOURCES)}, "
            "or none to fetch nothing",
            'for example sources = ["registry"]',
        )


def _trusted_proxies(networks: tuple[str, ...]) -> None:
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise SettingError(
                f"came {toml_of(network)}, expected IP addresses and networks of them ({error})",
                'for example trusted_proxies = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]',
            ) from error


def _otlp_endpoint(url: str) -> None:
    if url and not _is_url(url, ("http", "https"), literals=True):
        raise SettingError(
            f"came {_shown_url(url)}, expected the http:// or https:// address of a collector",
            'for example otlp_endpoint = "http://127.0.0.1:4318/v1/traces"',
        )


def _read_token(token: str) -> None:
    if token and (len(token) < _SHORTEST_READ_TOKEN or not _is_plain(token)):
        raise SettingError(
            "came a hidden text that cannot be a token: it is short, or has spaces, line breaks "
            "or characters other than ASCII",
            f"give {_SHORTEST_READ_TOKEN} characters or more, as `openssl rand -hex 24` prints",
        )


def _existing_file(name: str) -> None:
    if not name:
        return
    path = Path(name).expanduser()
    if path.is_file() and os.access(path, os.R_OK):
        return
    lack = "cannot be read by this user" if path.is_file() else "is no file"
    raise SettingError(
        f"came {toml_of(name)}, which {lack}",
        f"give a readable PEM file; relative names start at {Path.cwd()}",
    )


def _agent_name(name: str) -> None:
    if len(name) > _LONGEST_NAME or name != name.strip() or not name.isprintable():
        raise SettingError(
            f"came a text of {len(name)} characters, expected at most {_LONGEST_NAME}, without "
            "line breaks or space around them",
            'give it a short name, for example name = "kitchen"',
        )


def _agent_devices(patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        if not _DEVICES.fullmatch(pattern):
            raise SettingError(
                f"came {toml_of(pattern)}, expected device ids: letters, digits and . _ : - with "
                "* for any text",
                _DEVICES_EXAMPLE,
            )
        length = len(pattern.replace(ANYTHING, ""))
        if length > _LONGEST_NAME:
            raise SettingError(
                f"came a device id of {length} characters, expected at most {_LONGEST_NAME}, for "
                "no device has a longer one",
                "shorten it",
            )
        if _MAC_OTHERWISE.fullmatch(pattern):
            digits = pattern.replace("-", "").lower()
            spelt = ":".join(digits[start : start + 2] for start in range(0, len(digits), 2))
            raise SettingError(
                f"came {toml_of(pattern)}, expected MAC addresses as the server spells them, with "
                "colons",
                f"write {toml_of(spelt)}",
            )


def _agent(settings: AgentSettings) -> Iterator[SettingError]:
    if not settings.name:
        yield SettingError(
            "came none, expected a name for each agent",
            'for example name = "kitchen"',
            ("name",),
        )
    if not settings.devices:
        yield SettingError(
            "came none, expected the agent's devices", _DEVICES_EXAMPLE, ("devices",)
        )


def _server(settings: ServerSettings) -> Iterator[SettingError]:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        given, lacking = ("tls_certificate", "tls_key")
        if settings.tls_key:
            given, lacking = lacking, given
        yield SettingError(
            f"{given} is set but {lacking} is not, expected both or none",
            f"set {lacking} too, or empty {given}",
            (lacking,),
        )
    if settings.websocket_port == settings.http_port != 0:
        yield SettingError(
            f"came {settings.http_port}, which is websocket_port too, expected two ports",
            "give one of them another number",
            ("http_port",),
        )


def _listening(settings: ListeningSettings) -> Iterator[SettingError]:
    if settings.silence_threshold >= settings.voice_threshold:
        yield SettingError(
            f"came {settings.silence_threshold}, expected less than voice_threshold, "
            f"which is {settings.voice_threshold}",
            "lower silence_threshold or raise voice_threshold",
            ("silence_threshold",),
        )


def _bilingual(settings: BilingualSettings) -> Iterator[SettingError]:
    for key, engine in (("chinese", settings.chinese), ("english", settings.english)):
        if engine == "bilingual":
            yield SettingError(
                'came "bilingual", expected an engine that speaks by itself',
                f'for example {key} = "kokoro"',
                (key,),
            )


def _fallback(
    settings: RecognizerSettings | LanguageModelSettings | SynthesizerSettings,
) -> Iterator[SettingError]:
    chain = (settings.engine, *settings.fallback)
    for name in sorted({name for name in chain if chain.count(name) > 1}):
        given = "the engine itself" if name == settings.engine else "there twice"
        yield SettingError(
            f"came {toml_of(settings.fallback)}, in which {toml_of(name)} is {given}, "
            "expected other engines, each once",
            f"take {toml_of(name)} out: the engine itself is tried again without that, and a "
            "further one of it needs a table with a name of its own",
            ("fallback",),
        )


def _synthesizer(settings: SynthesizerSettings) -> Iterator[SettingError]:
    yield from _fallback(settings)
    pairs = {name: named.settings for name, named in settings.named.items()}
    for table, pair in {"bilingual": settings.bilingual, **pairs}.items():
        if not isinstance(pair, BilingualSettings):
            continue
        for key, engine in (("chinese", pair.chinese), ("english", pair.english)):
            if isinstance(pairs.get(engine), BilingualSettings):
                yield SettingError(
                    f"came {toml_of(engine)}, which is bilingual, expected an engine that "
                    "speaks by itself",
                    f'for example {key} = "kokoro"',
                    (table, key),
                )


def _patience(settings: Settings) -> Iterator[SettingError]:
    """The engines before the last one of a chain must leave it time of the stage's."""
    conversation = settings.conversation
    for kind, chosen, stage in (
        ("asr", settings.asr, "recognition_seconds"),
        ("llm", settings.llm, "first_token_seconds"),
        ("tts", settings.tts, "synthesis_seconds"),
    ):
        seconds = getattr(conversation, stage)
        if len(chosen.fallback) * chosen.first_answer_seconds >= seconds:
            yield SettingError(
                f"came {chosen.first_answer_seconds:g} for each engine but the last, expected "
                f"less than {seconds / len(chosen.fallback):g}, for all of them together have "
                f"{seconds:g}: [conversation] {stage}",
                "lower it, so that the last engine has time left, or raise the other",
                (kind, "first_answer_seconds"),
            )


FIELD_RULES: Mapping[tuple[type, str], Callable[[Any], None]] = {
    (ServerSettings, "websocket_path"): _websocket_path,
    (ServerSettings, "websocket_url"): _websocket_url,
    (ServerSettings, "http_url"): _http_url,
    (ServerSettings, "tls_certificate"): _existing_file,
    (ServerSettings, "tls_key"): _existing_file,
    (ServerSettings, "trusted_proxies"): _trusted_proxies,
    (ModelSettings, "sources"): _sources,
    (AgentSettings, "name"): _agent_name,
    (AgentSettings, "devices"): _agent_devices,
    (TelemetrySettings, "otlp_endpoint"): _otlp_endpoint,
    (TelemetrySettings, "read_token"): _read_token,
    **{
        (openai, field): rule
        for openai in (
            OpenAiRecognizerSettings,
            OpenAiLanguageModelSettings,
            OpenAiSynthesizerSettings,
        )
        for field, rule in (("base_url", _base_url), ("api_key", _api_key))
    },
}
"""By class and field: raises `SettingError`."""

SECTION_RULES: Mapping[type, Callable[[Any], Iterator[SettingError]]] = {
    ServerSettings: _server,
    ListeningSettings: _listening,
    BilingualSettings: _bilingual,
    RecognizerSettings: _fallback,
    LanguageModelSettings: _fallback,
    SynthesizerSettings: _synthesizer,
    Settings: _patience,
    AgentSettings: _agent,
}
"""By class: gives an `SettingError` for each rule broken, with the key to blame."""


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _shown_url(url: str) -> str:
    return "a hidden address with a user or password in it" if "@" in url else toml_of(url)


def _is_url(url: str, schemes: tuple[str, ...], *, literals: bool = False) -> bool:
    """Whether it is an address of one of these schemes; `literals` allows IPv6."""
    if not _is_plain(url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return bool(
        parts.scheme in schemes
        and parts.hostname
        and port != 0
        and not parts.netloc.endswith(":")
        and "@" not in parts.netloc
        and not parts.fragment
        and (literals or "[" not in parts.netloc)
    )
