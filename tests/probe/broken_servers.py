"""A small server that serves every client of the probe, and servers that differ by one fault."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import attrs
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from xiaozhi_trio.cli.handshake_probe import clip, framed

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "the-right-token"
ALERT = {"type": "alert", "status": "no", "message": "认证失败", "emotion": "sad"}


class HungUp(Exception):
    """The client is gone, or does not speak HTTP."""


@attrs.frozen
class Request:
    method: str
    path: str
    query: dict[str, str]
    names: list[str]
    """Header names as sent."""
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes = b""

    @classmethod
    async def read(cls, stream: trio.abc.Stream) -> Request:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some()
            if not chunk or not (data + chunk)[:1].isalpha():
                raise HungUp
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("ascii").split("\r\n")
        method, target, _ = line.split(" ")
        fields = [each.partition(": ")[::2] for each in lines]
        headers = {name.lower(): value for name, value in reversed(fields)}
        while len(body) < int(headers.get("content-length", "0")):
            body += await stream.receive_some()
        path, _, query = target.partition("?")
        return cls(method, path, dict(parse_qsl(query)), [n for n, _ in fields], headers, body)

    @property
    def identity(self) -> dict[str, str]:
        return self.query | self.headers

    @property
    def device_id(self) -> str:
        return self.identity.get("device-id", "")

    @property
    def token(self) -> str:
        return self.identity.get("authorization", "").removeprefix("Bearer").strip()

    @property
    def upgrades(self) -> bool:
        words = self.headers.get("connection", "").lower().split(",")
        return "upgrade" in (word.strip() for word in words)


def http(status: str, body: str | dict[str, Any] = "", **headers: str) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    kind = "text/plain" if isinstance(body, str) else "application/json"
    given = {"Content-Type": kind, "Content-Length": str(len(text.encode()))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items() if value)]
    return "\r\n".join([*lines, "", text]).encode()


class Device:
    """The server's end of a WebSocket."""

    def __init__(self, stream: trio.abc.Stream, request: Request) -> None:
        self.stream = stream
        self.request = request
        self.framing = 1
        self.frame_ms = 60
        self.is_open = True
        self._frames = Connection(ConnectionType.SERVER)

    async def receive(self) -> dict[str, Any] | bytes:
        while True:
            for event in self._frames.events():
                if isinstance(event, TextMessage):
                    return json.loads(event.data)
                if isinstance(event, BytesMessage):
                    return bytes(event.data)
                raise HungUp
            data = await self.stream.receive_some()
            if not data:
                raise HungUp
            self._frames.receive_data(bytes(data))

    async def say(self, **body: Any) -> None:
        await self.stream.send_all(self._frames.send(TextMessage(json.dumps(body))))

    async def play(self, packet: bytes) -> None:
        frame = framed(packet, self.framing)
        await self.stream.send_all(self._frames.send(BytesMessage(frame)))

    async def close(self, code: int, reason: str = "") -> None:
        await self.stream.send_all(self._frames.send(CloseConnection(code, reason)))
        raise HungUp


class HealthyServer:
    """WebSocket and OTA on one port, with nothing wrong."""

    asks_for_tokens = False
    ota_path = "/xiaozhi/ota/"
    seconds_per_packet = 0.06
    packets = 12

    def __init__(self) -> None:
        self.served = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        self.served += 1
        try:
            await self.meet(stream, await Request.read(stream))
        except* (HungUp, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await trio.aclose_forcefully(stream)

    async def meet(self, stream: trio.abc.Stream, request: Request) -> None:
        if "/ota" in request.path:
            await stream.send_all(self.ota(request))
        elif not self.is_upgrade(request):
            await stream.send_all(self.plain(request))
        elif refusal := self.refuse(request):
            await stream.send_all(refusal)
        else:
            await stream.send_all(self.accept(request))
            await self.talk(Device(stream, request))

    # HTTP

    def plain(self, request: Request) -> bytes:
        return http("200 OK", "Server is running")

    def ota(self, request: Request) -> bytes:
        cors = {
            "Access_Control_Allow_Origin": "*",
            "Access_Control_Allow_Headers": "content-type, device-id, client-id",
        }
        if request.method == "OPTIONS":
            return http("204 No Content", "", Content_Length="", **cors)
        if request.method == "GET":
            return http("200 OK", "OTA is here", **cors)
        return http("200 OK", self.document(request), **cors)

    def document(self, request: Request) -> dict[str, Any]:
        return {
            "server_time": {"timestamp": 1_795_000_000_000, "timezone_offset": 480},
            "firmware": {"version": "2.4.2", "url": ""},
            "websocket": {
                "url": "ws://device.example:8000/xiaozhi/v1/",
                "token": TOKEN if self.asks_for_tokens else "",
                "version": 1,
            },
        }

    # Handshake

    def is_upgrade(self, request: Request) -> bool:
        return request.upgrades

    def refuse(self, request: Request) -> bytes | None:
        """The answer to a client that is not let in."""
        if request.path != "/xiaozhi/v1/":
            return http("404 Not Found")
        if not request.device_id:
            return http("400 Bad Request", {"error": "unauthorized", "reason": "device_id_missing"})
        if not self.is_allowed(request) and "origin" not in request.headers:
            return http("401 Unauthorized", {"error": "unauthorized"})
        return None

    def is_allowed(self, request: Request) -> bool:
        return not self.asks_for_tokens or (
            request.token == TOKEN and request.device_id.endswith("65")
        )

    def accept(self, request: Request) -> bytes:
        text = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    # Conversation

    async def talk(self, device: Device) -> None:
        if not self.is_allowed(device.request):
            await device.say(**ALERT)
            await device.close(1008, "token_malformed")
        async with trio.open_nursery() as nursery:
            while True:
                message = await device.receive()
                if isinstance(message, bytes):
                    await self.hear(device, nursery)
                else:
                    await self.obey(device, message, nursery)

    async def hear(self, device: Device, nursery: trio.Nursery) -> None:
        """Take one packet of the microphone: the thirtieth in automatic mode ends the speech."""

    async def obey(self, device: Device, message: dict[str, Any], nursery: trio.Nursery) -> None:
        match message:
            case {"type": "hello"}:
                device.framing = message.get("version", 1)
                wanted = message.get("audio_params", {}).get("frame_duration", 60)
                device.frame_ms = min(60, wanted)
                await self.greet(device)
            case {"type": "listen", "state": "detect", "text": text}:
                nursery.start_soon(self.answer, device, text)
            case {"type": "listen", "state": "start", "mode": "auto"}:
                nursery.start_soon(self.answer_later, device)
            case {"type": "listen", "state": "stop"}:
                nursery.start_soon(self.answer, device, "hello")
            case {"type": "abort"}:
                await self.stop(device)

    async def answer_later(self, device: Device) -> None:
        """In place of a voice detector: the clip is over in two seconds."""
        await trio.sleep(2)
        await self.answer(device, "hello")

    def hello(self, device: Device) -> dict[str, Any]:
        return {
            "type": "hello",
            "transport": "websocket",
            "session_id": "1",
            "audio_params": {
                "format": "opus",
                "sample_rate": 24000,
                "channels": 1,
                "frame_duration": device.frame_ms,
            },
        }

    async def greet(self, device: Device) -> None:
        await device.say(**self.hello(device))

    async def answer(self, device: Device, text: str) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await device.say(type="stt", text=text)
            await self.speak(device)

    async def speak(self, device: Device) -> None:
        await device.say(type="tts", state="start")
        for packet in self.audio(device):
            await device.play(packet)
            await trio.sleep(self.seconds_per_packet)
        await self.stop(device)

    async def stop(self, device: Device) -> None:
        await device.say(type="tts", state="stop")

    def audio(self, device: Device) -> list[bytes]:
        return (clip(device.frame_ms) * 30)[: self.packets]


class AskingServer(HealthyServer):
    """Asks for tokens, and refuses as it should."""

    asks_for_tokens = True


# What goes wrong at the doorway.


class QueryOnly500(HealthyServer):
    """Takes the device id from the headers only and fails without it."""

    def refuse(self, request: Request) -> bytes | None:
        if "device-id" not in request.headers:
            return http("500 Internal Server Error", "Failed to open a WebSocket connection.\n")
        return super().refuse(request)


class QueryUnread(HealthyServer):
    def refuse(self, request: Request) -> bytes | None:
        return super().refuse(attrs.evolve(request, query={}))


class KeepAlive200(HealthyServer):
    def is_upgrade(self, request: Request) -> bool:
        return request.headers.get("connection", "").lower() == "upgrade"


class CaseSensitive(HealthyServer):
    def refuse(self, request: Request) -> bytes | None:
        if "DEVICE-ID" in request.names:
            return http("400 Bad Request")
        return super().refuse(request)


class OriginChecking(HealthyServer):
    def refuse(self, request: Request) -> bytes | None:
        return http("403 Forbidden") if "origin" in request.headers else super().refuse(request)


class ForcesCompression(HealthyServer):
    def accept(self, request: Request) -> bytes:
        return (
            super().accept(request)[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        )


class WrongAccept(HealthyServer):
    def accept(self, request: Request) -> bytes:
        return b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class HangsUp(HealthyServer):
    async def meet(self, stream: trio.abc.Stream, request: Request) -> None:
        if not request.upgrades:
            await super().meet(stream, request)


class NeverAnswers(HealthyServer):
    async def serve(self, stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()


class SpeaksSsh(HealthyServer):
    async def serve(self, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"SSH-2.0-OpenSSH_9.6\x1b[2J\r\n")
            await stream.receive_some()
        await trio.aclose_forcefully(stream)


def answers(status: str) -> type[HealthyServer]:
    """A server that answers every upgrade with this status."""

    class Answers(HealthyServer):
        def refuse(self, request: Request) -> bytes | None:
            return http(status, "the reason")

    return Answers


class DiesAtTheFifth(HealthyServer):
    """Refuses connections from the fifth on, as if it had ended."""

    @property
    def is_dead(self) -> bool:
        return self.served > 4


# What goes wrong at the hello.


class NoHello(HealthyServer):
    async def greet(self, device: Device) -> None:
        pass


class HangsUpAtHello(HealthyServer):
    async def greet(self, device: Device) -> None:
        await device.close(1000)


class SendsReservedOpcode(HealthyServer):
    async def greet(self, device: Device) -> None:
        await device.stream.send_all(b"\x83\x00")


class WantsBinding(HealthyServer):
    async def greet(self, device: Device) -> None:
        await device.say(type="stt", text="请登录控制面板，绑定设备")


class LateHello(HealthyServer):
    async def greet(self, device: Device) -> None:
        await trio.sleep(6)
        await super().greet(device)


def hello_changed(change: Callable[[dict[str, Any]], object]) -> type[HealthyServer]:
    """A server whose hello is not what it should be."""

    class HelloChanged(HealthyServer):
        def hello(self, device: Device) -> dict[str, Any]:
            hello = super().hello(device)
            change(hello)
            return hello

    return HelloChanged


# What goes wrong with those who may not come in.


class ClosesWithoutReason(AskingServer):
    def refuse(self, request: Request) -> bytes | None:
        return None

    async def talk(self, device: Device) -> None:
        if not self.is_allowed(device.request):
            await device.close(1000)
        await super().talk(device)


class ToldAfterUpgrade(AskingServer):
    """Says why, but where firmware does not look."""

    def refuse(self, request: Request) -> bytes | None:
        return None


class TakesAnyToken(AskingServer):
    def is_allowed(self, request: Request) -> bool:
        return bool(request.token)


class TakesNoToken(AskingServer):
    """OTA hands out a token, and nobody asks for it."""

    def is_allowed(self, request: Request) -> bool:
        return True


class RefusesPagesBeforeUpgrade(AskingServer):
    def refuse(self, request: Request) -> bytes | None:
        if not self.is_allowed(request):
            return http("401 Unauthorized")
        return super().refuse(request)


class StrayClients(HealthyServer):
    """Deals badly with clients that are lost."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    async def meet(self, stream: trio.abc.Stream, request: Request) -> None:
        if request.device_id or not request.upgrades:
            await super().meet(stream, request)
        elif self._how == "500":
            await stream.send_all(http("500 Internal Server Error"))
        elif self._how == "silence":
            await trio.sleep_forever()
        elif self._how == "in":
            await stream.send_all(self.accept(request))
            await self.talk(Device(stream, request))


class PlainGetHangsUp(HealthyServer):
    def plain(self, request: Request) -> bytes:
        return b""


class WaitsForTls(HealthyServer):
    """Waits for the rest of what it takes for a request."""

    async def serve(self, stream: trio.abc.Stream) -> None:
        first = await stream.receive_some(1)
        if first == b"\x16":
            await trio.sleep_forever()
        await super().serve(Replaying(stream, first))


class Replaying(trio.abc.Stream):
    """A stream of which the first bytes have been read already."""

    def __init__(self, stream: trio.abc.Stream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


# What goes wrong in a turn.


class NoStop(HealthyServer):
    async def stop(self, device: Device) -> None:
        pass


class NoAudio(HealthyServer):
    packets = 0


class NoStart(HealthyServer):
    async def speak(self, device: Device) -> None:
        for packet in self.audio(device):
            await device.play(packet)
        await self.stop(device)


class NoAnswer(HealthyServer):
    async def answer(self, device: Device, text: str) -> None:
        pass


class Deaf(HealthyServer):
    """Answers text, and speech with a bare `tts stop`."""

    async def answer(self, device: Device, text: str) -> None:
        if text == "hello":
            await self.stop(device)
        else:
            await super().answer(device, text)


class AlertsOnly(HealthyServer):
    async def speak(self, device: Device) -> None:
        await device.say(**ALERT | {"message": "no key\x1b[31m"})
        await self.stop(device)


class HangsUpInTurn(HealthyServer):
    async def speak(self, device: Device) -> None:
        await device.say(type="tts", state="start")
        await device.stream.aclose()


class FramingOneOnly(HealthyServer):
    async def greet(self, device: Device) -> None:
        device.framing = 1
        await super().greet(device)


class LongPackets(HealthyServer):
    def audio(self, device: Device) -> list[bytes]:
        return [b"\x59" + bytes(20)] * self.packets


class SendsAllAtOnce(HealthyServer):
    seconds_per_packet = 0.0
    packets = 60


class IgnoresAbort(HealthyServer):
    packets = 3000

    async def obey(self, device: Device, message: dict[str, Any], nursery: trio.Nursery) -> None:
        if message.get("type") != "abort":
            await super().obey(device, message, nursery)


# What goes wrong with OTA.


def ota_changed(change: Callable[[dict[str, Any]], object]) -> type[HealthyServer]:
    """A server whose OTA document is not what it should be."""

    class OtaChanged(HealthyServer):
        def document(self, request: Request) -> dict[str, Any]:
            document = super().document(request)
            change(document)
            return document

    return OtaChanged


def ota_answers(answer: Callable[[HealthyServer, Request], bytes]) -> type[HealthyServer]:
    """A server whose OTA answers otherwise to every POST."""

    class OtaAnswers(HealthyServer):
        def ota(self, request: Request) -> bytes:
            return answer(self, request) if request.method == "POST" else super().ota(request)

    return OtaAnswers


def in_chunks(server: HealthyServer, request: Request) -> bytes:
    body = json.dumps(server.document(request)).encode()
    whole = http("200 OK", {}, Content_Length="", Transfer_Encoding="chunked",
                 Access_Control_Allow_Origin="*")  # fmt: skip
    return whole[:-2] + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


class NeedsValidBody(HealthyServer):
    def ota(self, request: Request) -> bytes:
        try:
            json.loads(request.body or b"{}")
        except ValueError:
            return http("500 Internal Server Error")
        return super().ota(request)


class NoPreflight(HealthyServer):
    def ota(self, request: Request) -> bytes:
        return (
            http("405 Method Not Allowed") if request.method == "OPTIONS" else super().ota(request)
        )


class OtaGet500(HealthyServer):
    def ota(self, request: Request) -> bytes:
        return http("500 Oops") if request.method == "GET" else super().ota(request)


class NewTokenEachTime(HealthyServer):
    def document(self, request: Request) -> dict[str, Any]:
        document = super().document(request)
        document["websocket"]["url"] += f"?{self.served}"
        return document


class OtaOnWebSocketPort(HealthyServer):
    """Hands out the address of its own port, where no WebSocket is."""

    def document(self, request: Request) -> dict[str, Any]:
        document = super().document(request)
        document["websocket"]["url"] = "ws://device.example:8003/xiaozhi/v1/"
        return document

    def is_upgrade(self, request: Request) -> bool:
        return False
