"""The simulated firmware: its states, what it hears, and what it loses by itself."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio

from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.testing import MemoryLink
from xiaozhi_trio.testing.firmware_device import (
    CannotConnect,
    DeviceProfile,
    FirmwareDevice,
    State,
)
from xiaozhi_trio.testing.timeline import Timeline
from xiaozhi_trio.testing.tone_speech import speech
from xiaozhi_trio.wire.messages import decode

HELLO = '{"type":"hello","transport":"websocket","audio_params":{"sample_rate":24000}}'


@attrs.define
class Server:
    """What the other side of the device's line says and hears."""

    device: FirmwareDevice
    timeline: Timeline
    links: list[MemoryLink]
    texts: list[str]
    packets: list[bytes]

    async def say(self, text: str) -> None:
        await self.links[-1].to_device.send(text)

    async def tts(self, state: str) -> None:
        await self.say(f'{{"type":"tts","state":"{state}"}}')

    async def audio(self, count: int) -> None:
        encoder = OpusEncoder(24_000, frame_ms=60)
        for _ in range(count):
            await self.links[-1].to_device.send(encoder.encode(bytes(encoder.frame_bytes)))

    def sent(self) -> list[str]:
        """What the device has sent, without its hellos."""
        return [text for text in self.texts if '"hello"' not in text]

    def states(self) -> list[str]:
        names = {state.value for state in State}
        return [event.kind for event in self.timeline.happenings if event.kind in names]


@pytest.fixture
def meet(nursery: trio.Nursery):
    async def start(*, greets: bool = True, reachable: bool = True, **profile: Any) -> Server:
        links: list[MemoryLink] = []
        texts: list[str] = []
        packets: list[bytes] = []

        async def answer(link: MemoryLink) -> None:
            with suppress(trio.ClosedResourceError):
                async for payload in link.from_device:
                    if isinstance(payload, bytes):
                        packets.append(payload)
                        continue
                    texts.append(payload)
                    decode(payload)
                    if '"hello"' in payload and greets:
                        await link.to_device.send(HELLO)

        @asynccontextmanager
        async def dial():
            if not reachable:
                raise CannotConnect("HTTP 401")
            link = MemoryLink()
            links.append(link)
            nursery.start_soon(answer, link)
            try:
                yield link
            finally:
                link.hang_up()

        timeline = Timeline()
        device = FirmwareDevice(dial, DeviceProfile(**profile), timeline)
        await nursery.start(device.run)
        return Server(device, timeline, links, texts, packets)

    return start


async def test_the_button_opens_a_conversation(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    assert server.states() == ["connecting", "listening"]
    assert server.sent() == [
        '{"session_id": "", "type": "listen", "state": "start", "mode": "auto"}'
    ]
    assert server.device.microphone_is_open


async def test_the_microphone_needs_120_ms_to_warm_up(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await server.timeline.wait_until(lambda: server.device.microphone_is_open)
    asked_at = next(server.timeline.since(0, "sent listen start")).at
    assert trio.current_time() - asked_at == pytest.approx(0.120)
    assert not server.packets


async def test_the_wake_word_goes_ahead_of_any_listen(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.wake(speech("你好小智", 16_000))
    early = len(server.packets)
    await trio.sleep(0.1)
    assert early == pytest.approx(13, abs=1)
    assert ['"detect"' in text or '"start"' in text for text in server.sent()] == [True, True]
    assert '"detect"' in server.sent()[0]


async def test_no_more_than_2_s_of_the_wake_word_are_kept(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.wake(bytes(16_000 * 2 * 5))
    assert len(server.packets) == 33


@pytest.mark.parametrize("mode", ["auto", "realtime"])
async def test_the_microphone_is_off_while_it_speaks_but_in_realtime(
    autojump_clock, meet, mode
) -> None:
    server = await meet(mode=mode)
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await trio.sleep(0.1)
    assert server.device.state is State.SPEAKING
    assert server.device.microphone_is_open == (mode == "realtime")


async def test_audio_in_the_burst_with_tts_start_is_lost(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await server.audio(2)
    await trio.sleep(0.020)
    await server.audio(3)
    await trio.sleep(0.030)
    await server.audio(3)
    await trio.sleep(1)
    losses = server.device.loudspeaker.losses
    assert (losses.deaf, losses.reset) == (2, 2)
    assert len(server.device.loudspeaker.played) == 1 + 3


async def test_audio_is_heard_in_speaking_only(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.audio(3)
    await trio.sleep(1)
    assert not server.device.loudspeaker.played
    assert server.device.loudspeaker.losses.deaf == 3


async def test_the_microphone_opens_again_when_the_queue_has_drained(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await trio.sleep(0.1)
    began = trio.current_time()
    await server.audio(20)
    await server.tts("stop")
    await trio.sleep(2)
    _, again = server.timeline.since(0, "sent listen start")
    assert again.at - began == pytest.approx(20 * 0.060, abs=0.05)
    assert len(server.device.loudspeaker.played) == 20


async def test_in_realtime_listen_start_is_said_once(autojump_clock, meet) -> None:
    server = await meet(mode="realtime")
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await trio.sleep(0.5)
    await server.tts("stop")
    await trio.sleep(0.5)
    assert len(server.sent()) == 1
    assert server.device.state is State.LISTENING


async def test_the_button_leaves_it_in_speaking_until_tts_stop(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await trio.sleep(0.1)
    await server.device.press_button()
    await trio.sleep(60)
    assert server.device.state is State.SPEAKING
    assert server.sent()[-1] == '{"session_id": "", "type": "abort"}'
    await server.tts("stop")
    await trio.sleep(0.5)
    assert server.device.state is State.LISTENING


async def test_the_wake_word_leaves_speaking_by_itself(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await trio.sleep(0.1)
    await server.audio(20)
    await server.device.wake()
    await trio.sleep(0.1)
    assert server.device.state is State.LISTENING
    assert '"wake_word_detected"' in server.sent()[-2]
    assert '"start"' in server.sent()[-1]
    await trio.sleep(2)
    assert len(server.device.loudspeaker.played) <= 2


async def test_the_wake_word_while_it_listens_begins_anew(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.device.wake()
    await trio.sleep(1)
    assert ['"abort"' in text for text in server.sent()] == [False, True, False]
    assert server.device.microphone_is_open


async def test_push_to_talk_is_idle_after_the_reply(autojump_clock, meet) -> None:
    server = await meet(mode="manual")
    await server.device.press_talk()
    await trio.sleep(1)
    await server.device.release_talk()
    assert server.device.state is State.IDLE
    await server.tts("start")
    await trio.sleep(0.1)
    assert server.device.state is State.SPEAKING
    await server.tts("stop")
    await trio.sleep(0.1)
    assert server.device.state is State.IDLE
    assert ['"manual"' in text or '"stop"' in text for text in server.sent()] == [True, True]


async def test_push_to_talk_interrupts(autojump_clock, meet) -> None:
    server = await meet(mode="manual")
    await server.device.press_talk()
    await server.device.release_talk()
    await server.tts("start")
    await trio.sleep(0.1)
    await server.device.press_talk()
    await trio.sleep(0.5)
    assert server.device.state is State.LISTENING
    assert server.device.microphone_is_open
    await server.device.press_talk()
    assert '"abort"' in server.sent()[-2]


async def test_the_button_hangs_up_while_it_listens(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.device.press_button()
    await trio.sleep(0.1)
    assert server.device.state is State.IDLE
    assert not server.device.is_connected
    assert not server.device.microphone_is_open


async def test_it_is_idle_when_the_server_hangs_up(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    server.links[0].from_device.close()
    await server.links[0].to_device.aclose()
    await trio.sleep(0.1)
    assert server.device.state is State.IDLE
    assert list(server.timeline.since(0, "hang up"))


async def test_a_refusal_leaves_it_idle(autojump_clock, meet) -> None:
    server = await meet(reachable=False)
    await server.device.press_button()
    assert server.states() == ["connecting", "idle"]
    assert next(server.timeline.since(0, "not connected")).text == "HTTP 401"


async def test_it_waits_10_s_for_the_hello(autojump_clock, meet) -> None:
    server = await meet(greets=False)
    began = trio.current_time()
    await server.device.wake()
    assert trio.current_time() - began == pytest.approx(10.0, abs=0.1)
    assert server.device.state is State.IDLE


async def test_a_channel_that_was_silent_for_120_s_is_stumbled_over(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.connect()
    await trio.sleep(121)
    await server.device.press_button()
    await trio.sleep(1)
    assert len(server.links) == 2
    assert server.device.state is State.IDLE
    assert server.device.is_connected


async def test_tts_start_in_the_idle_state_is_followed(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.connect()
    await server.tts("start")
    await trio.sleep(0.1)
    assert server.device.state is State.SPEAKING


async def test_a_needless_tts_stop_changes_nothing(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("stop")
    await trio.sleep(0.5)
    assert server.states() == ["connecting", "listening"]


async def test_a_start_and_a_stop_in_one_breath_are_one_event(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await server.tts("stop")
    await trio.sleep(0.5)
    assert server.device.state is State.LISTENING
    assert len(server.sent()) == 1


async def test_uplink_packets_carry_what_was_playing(autojump_clock, meet) -> None:
    server = await meet(mode="realtime", aec="server", binary_version=2)
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await trio.sleep(0.1)
    encoder = OpusEncoder(24_000, frame_ms=60)
    for number in range(1, 6):
        packet = encoder.encode(bytes(encoder.frame_bytes))
        header = bytes.fromhex("0002000000000000") + (number * 60).to_bytes(4, "big")
        await server.links[0].to_device.send(header + len(packet).to_bytes(4, "big") + packet)
    await trio.sleep(1)
    stamps = [int.from_bytes(packet[8:12], "big") for packet in server.packets]
    assert [stamp for stamp in stamps if stamp] == [60, 120, 180, 240, 300]
    assert '"aec": true' in server.texts[0]


async def test_its_own_voice_is_in_the_room(autojump_clock, meet) -> None:
    server = await meet(mode="realtime", echo=0.5)
    await server.device.press_button()
    await trio.sleep(1)
    await server.tts("start")
    await trio.sleep(0.1)
    quiet = max(map(len, server.packets))
    encoder = OpusEncoder(24_000, frame_ms=60)
    pcm = speech("loud and clear", 24_000)
    for start in range(0, 10 * encoder.frame_bytes, encoder.frame_bytes):
        packet = encoder.encode(pcm[start : start + encoder.frame_bytes])
        await server.links[0].to_device.send(packet)
    server.packets.clear()
    await trio.sleep(0.6)
    assert max(map(len, server.packets)) > 2 * quiet


async def test_its_tools_answer(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.connect()
    call = '{"name":"self.audio_speaker.set_volume","arguments":{"volume":30}}'
    await server.say(
        '{"type":"mcp","payload":{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
        + call
        + "}}"
    )
    await trio.sleep(0.1)
    assert server.device.tools.volume == 30
    assert '"isError": false' in server.sent()[-1]


async def test_what_cannot_be_sent_is_noted(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.connect()
    server.links[0].from_device.close()
    await server.device.type_text("hello?")
    assert next(server.timeline.since(0, "not sent")).text == "listen"


async def test_anything_can_be_sent_behind_its_back(autojump_clock, meet) -> None:
    server = await meet()
    await server.device.send_json(type="abort")
    await server.device.send_raw("nothing")
    await server.device.connect()
    await server.device.send_json(type="abort", reason="because")
    await trio.sleep(0.1)
    assert server.texts[-1] == '{"type": "abort", "reason": "because"}'
    await server.device.lose_connection(reset=True)
    await trio.sleep(0.1)
    assert not server.device.is_connected
