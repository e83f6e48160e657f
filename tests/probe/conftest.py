from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair

from xiaozhi_trio.cli import handshake_probe
from xiaozhi_trio.cli.handshake_probe import Address, Dialler, Papers, Surveyor, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xiaozhi_trio.cli.handshake_probe import Report

    Probe = Callable[..., Awaitable[Report]]

# The servers are shared by test modules, which in this import mode have no package.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    """Probe a server in memory, on a virtual clock."""

    async def probe(
        server: Any,
        url: str = "ws://device.example:8000/xiaozhi/v1/",
        *,
        tls: Any = None,
        trusted: Any = None,
        **options: Any,
    ) -> Report:
        unverified = handshake_probe.unverified_context()
        async with trio.open_nursery() as nursery:

            async def connect(dialler: Dialler) -> trio.abc.Stream:
                if getattr(server, "is_dead", False):
                    raise Unreachable("Connection refused")
                ours, theirs = memory_stream_pair()
                nursery.start_soon(serve, theirs)
                return ours

            async def serve(stream: trio.abc.Stream) -> None:
                if tls is not None:
                    stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
                    try:
                        await stream.do_handshake()
                    except trio.BrokenResourceError:
                        await trio.aclose_forcefully(stream)
                        return
                await server.serve(stream)

            monkeypatch.setattr(Dialler, "_connect", connect)
            surveyor = Surveyor(
                address=Address.parse(url),
                papers=Papers("02:70:72:6f:62:65", "client", options.pop("token", "")),
                seconds=options.pop("seconds", 10.0),
                quick=options.pop("quick", True),
                insecure=options.pop("insecure", False),
                tell=lambda row: None,
                trusting=trusted or unverified,
                unverified=unverified,
            )
            report = await surveyor.run()
            nursery.cancel_scope.cancel()
        return report

    return probe
