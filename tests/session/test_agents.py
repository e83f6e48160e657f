"""Devices with agents of their own at one server, on a virtual clock."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.settings import (
    AgentSettings,
    ConversationSettings,
    ListeningSettings,
    PlayoutSettings,
    Settings,
    ToolSettings,
)
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.session.agents import Agents
from xiaozhi_trio.session.end_of_turn.registry import StrategyUnavailable
from xiaozhi_trio.session.session import SessionServices
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    encode_inline,
)

GRANDMA, KID, GUEST = "aa:bb:cc:dd:ee:01", "aa:bb:cc:dd:ee:02", "kitchen"

SETTINGS = Settings(
    listening=ListeningSettings(end_of_turn="silence", idle_seconds=50),
    agents=(
        AgentSettings(
            name="grandma",
            devices=(GRANDMA,),
            listening=ListeningSettings(
                end_of_turn="silence", end_silence_ms=1200, idle_seconds=100
            ),
            conversation=ConversationSettings(greeting_zh="", prompt="Be patient."),
        ),
        AgentSettings(
            name="kid",
            devices=("AA:*",),
            listening=ListeningSettings(end_of_turn="silence", end_silence_ms=300),
            conversation=ConversationSettings(
                greeting_zh="嗨！", wake_words=("旺财",), exit_words=("溜了",), farewell_zh="汪。"
            ),
            tools=ToolSettings(end_conversation=False),
        ),
    ),
)


class House:
    """One server and the devices at it."""

    def __init__(self, talk, settings: Settings) -> None:
        self._talk = talk
        self.engines = {
            "vad": LoudnessDetector(),
            "asr": ScriptedRecognizer("讲个故事"),
            "llm": ScriptedLanguageModel(["好的。"]),
            "tts": ScriptedSynthesizer(),
        }
        self.services = SessionServices(
            settings=settings,
            engines=EngineSet(**{k: EngineSlot.of_ready(e) for k, e in self.engines.items()}),
            run_encoding=encode_inline,
            vision=lambda _: ("http://192.168.1.2:8003/mcp/vision/explain", "token"),
        )

    async def device(self, device_id: str, **more):
        """A device that has said hello."""
        t = await self._talk(
            services=self.services,
            handshake={"device_id": device_id},
            frame_ms=20,
            **self.engines,
            **more,
        )
        await t.device.hello()
        return t


@pytest.fixture
def house(talk):
    return House(talk, SETTINGS)


def said(t) -> list[str]:
    return [event.body["text"] for event in t.device.of_kind("tts sentence_start")]


async def test_each_is_greeted_in_its_own_words_or_in_none(autojump_clock, house) -> None:
    devices = [await house.device(name) for name in (GRANDMA, KID, GUEST)]
    for t in devices:
        await t.device.detect("旺财" if t is devices[1] else "你好小智")
    await trio.sleep(5)
    assert [said(t) for t in devices] == [[], ["嗨！"], ["我在呢，请说。"]]
    assert not house.engines["llm"].dialogues


async def test_what_wakes_one_is_a_question_to_the_other(autojump_clock, house) -> None:
    kid = await house.device(KID)
    await kid.device.detect("你好小智")
    await kid.device.wait_for("tts stop")
    assert said(kid) == ["好的。"]


@pytest.mark.parametrize(("device_id", "seconds"), [(GRANDMA, 1.2), (KID, 0.3), (GUEST, 0.6)])
async def test_each_is_given_its_own_time(autojump_clock, house, device_id, seconds) -> None:
    devices = {name: await house.device(name) for name in (GRANDMA, KID, GUEST)}
    t = devices[device_id]
    await t.device.listen("auto")
    await t.device.speak(1.0)
    began = trio.current_time()
    await t.device.silence(3.0)
    assert (await t.device.wait_for("stt")).at - began == pytest.approx(seconds, abs=0.05)


async def test_each_has_its_own_character_and_tools(autojump_clock, house) -> None:
    prompts = {}
    tools = {}
    for name in (GRANDMA, KID, GUEST):
        t = await house.device(name)
        await t.device.detect("讲个故事")
        await t.device.wait_for("tts stop")
        prompts[name] = house.engines["llm"].dialogues[-1][0].content
        tools[name] = [tool.name for tool in house.engines["llm"].offered[-1]]
    default = ConversationSettings().prompt
    assert "Be patient." in prompts[GRANDMA]
    assert default not in prompts[GRANDMA]
    assert default in prompts[KID]
    assert default in prompts[GUEST]
    assert (len(tools[GRANDMA]), tools[KID]) == (1, [])


async def test_each_is_taken_leave_of_in_its_own_words(autojump_clock, house) -> None:
    kid = await house.device(KID)
    await kid.device.detect("溜了")
    await kid.device.wait_for_hang_up()
    assert said(kid) == ["汪。"]


async def test_each_is_idle_for_its_own_time(autojump_clock, house) -> None:
    for name, seconds in ((GRANDMA, 100), (GUEST, 50)):
        t = await house.device(name)
        began = trio.current_time()
        await t.device.wait_for_hang_up()
        assert trio.current_time() - began == pytest.approx(seconds, abs=0.1)


async def test_speech_is_as_far_ahead_as_the_agent_wants(autojump_clock, talk) -> None:
    far = AgentSettings(name="far", devices=("far",), playout=PlayoutSettings(lead_ms=900))
    house = House(talk, Settings(agents=(far,)))
    house.engines["llm"]._replies = [["It was a dark and stormy night. "] * 5]
    ahead = {}
    for name in ("far", "near"):
        t = await house.device(name)
        await t.device.detect("tell me a story")
        first = await t.device.wait_for("audio")
        await trio.sleep_until(first.at + 0.01)
        ahead[name] = len(t.device.of_kind("audio"))
    assert ahead["far"] > ahead["near"] + 5


async def test_the_log_tells_who_served(autojump_clock, house, log_lines) -> None:
    for name in (GRANDMA, GUEST):
        t = await house.device(name)
        await t.device.detect("讲个故事")
        await t.device.wait_for("tts stop")
    for message in ("hello", "turn over"):
        assert [line.get("agent") for line in log_lines(message)] == ["grandma", None]


def test_a_strategy_is_built_once_for_each_agent() -> None:
    agents = Agents.of(SETTINGS)
    assert agents.serving(GRANDMA) is agents.serving(GRANDMA)
    assert agents.serving("AA:BB") is agents.serving(KID)
    assert agents.serving(GUEST) is agents.common
    strategies = {id(agents.serving(name).end_of_turn) for name in (GRANDMA, KID, GUEST)}
    assert len(strategies) == 3


def test_a_strategy_that_cannot_be_had_is_told_with_its_agent() -> None:
    odd = AgentSettings(
        name="odd", devices=("*",), listening=ListeningSettings(end_of_turn="psychic")
    )
    with pytest.raises(StrategyUnavailable, match=r'agent "odd": .*came "psychic"'):
        Agents.of(Settings(agents=(odd,)))


def test_the_phrases_are_those_of_all_agents() -> None:
    phrases = list(Agents.of(SETTINGS).phrases())
    assert {"我在呢，请说。", "嗨！", "好的，再见。", "汪。"} <= set(phrases)
    assert phrases[0] == "我在呢，请说。"
