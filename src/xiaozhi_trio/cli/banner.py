"""What a starting server tells its operator: the addresses to enter, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import click
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

import xiaozhi_trio
from xiaozhi_trio.config.engines import KINDS, BilingualSettings, chain_of, engine_called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.config.engines import EngineSection
    from xiaozhi_trio.config.settings import Settings


class Addresses(Protocol):
    """Where the server can be reached."""

    @property
    def ota_urls(self) -> Sequence[str]:
        """One for each address of this machine, to be given to devices and browser pages."""

    @property
    def websocket_urls(self) -> Sequence[str]:
        """One for each address of this machine."""


def show_banner(settings: Settings, addresses: Addresses) -> None:
    """Print the addresses to stdout: in a panel on a terminal, as plain text elsewhere."""
    text = banner_text(settings, addresses)
    console = Console()
    if console.is_terminal:
        title = Text(f"xiaozhi-trio {xiaozhi_trio.__version__}", "bold")
        # Addresses must stay whole, to be copied, so the panel is as wide as they are.
        console.print(Panel.fit(Text(text, overflow="fold"), title=title, border_style="green"))
    else:
        click.echo(text)


def banner_text(settings: Settings, addresses: Addresses) -> str:
    """The banner without its frame, in English and Chinese."""
    lines = [
        "OTA address: for the device's Wi-Fi setup page (Advanced) and for browser test pages",
        "OTA 地址：填入设备配网页面的“高级选项”，或浏览器测试页",
        *(f"    {url}" for url in addresses.ota_urls),
        "",
        "WebSocket address: OTA tells it to devices; only clients without OTA need it",
        "WebSocket 地址：设备会从 OTA 自动获取，仅不使用 OTA 的客户端需要填写",
        *(f"    {url}" for url in addresses.websocket_urls),
        "",
        f"Engines: {engine_names(settings)}",
        "They are loading; devices may connect already. 引擎正在加载，设备现在即可连接。",
    ]
    if not settings.authentication.enabled:
        lines.append(
            "Authentication is off: any device may connect. 未启用认证：任何设备都可以连接。"
        )
    if settings.recording.directory:
        lines += [
            f"Every session is recorded, with all that is said, in {settings.recording.directory}",
            f"所有会话（包括全部对话内容）都会被录制到 {settings.recording.directory}",
        ]
    return "\n".join(lines)


def engine_names(settings: Settings) -> str:
    """`vad silero, asr whisper, llm cloud (openai) or llama, tts bilingual (kokoro + hibari)`."""
    return ", ".join(
        f"{KINDS[type(section)]} {' or '.join(_shown(name, section) for name in chain_of(section))}"
        for section in (settings.vad, settings.asr, settings.llm, settings.tts)
    )


def _shown(name: str, section: EngineSection) -> str:
    chosen = engine_called(name, section)
    if isinstance(chosen.settings, BilingualSettings):
        return f"{name} ({chosen.settings.chinese} + {chosen.settings.english})"
    return name if name == chosen.engine else f"{name} ({chosen.engine})"
