"""Tools in the reply: called when it is certain, told to the model, kept in the history."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from xiaozhi_trio.config.settings import (
    AgentSettings,
    ConversationSettings,
    ListeningSettings,
    Settings,
    ToolSettings,
)
from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall
from xiaozhi_trio.session.clearance import Clearance
from xiaozhi_trio.session.tool_calls import ToolCalls
from xiaozhi_trio.telemetry.turn_trace import StageOutcome, TurnTrace
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedRecognizer
from xiaozhi_trio.testing.device_tools import DeviceTools
from xiaozhi_trio.tools.tool import ToolError
from xiaozhi_trio.tools.toolbox import Toolbox
from xiaozhi_trio.wire.closing import NORMAL

if TYPE_CHECKING:
    from collections.abc import Mapping

LOUDER = ToolCall("1", "self_audio_speaker_set_volume", '{"volume": 90}')
STATUS = ToolCall("2", "self_get_device_status", "")
HANG_UP = ToolCall("3", "end_conversation", "{}")


class DeafTools(DeviceTools):
    """They do what they are asked, and never say so."""

    def _call(self, name: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        super()._call(name, arguments)
        raise TimeoutError


async def serve(device, tools: DeviceTools) -> None:
    count = 0
    with suppress(trio.EndOfChannel, trio.BrokenResourceError):
        while True:
            count += 1
            event = await device.wait_for("mcp", count=count)
            with suppress(TimeoutError):
                answer = tools.answer(event.body["payload"])
                if answer is not None:
                    await device.send_json(session_id="", type="mcp", payload=answer)


@pytest.fixture
def meet(autojump_clock, talk, nursery):
    """Start a talk with a device that has tools, already listed."""

    async def meet(*replies: Any, tools: DeviceTools | None = None, **more: Any):
        t = await talk(llm=ScriptedLanguageModel(*replies), **more)
        tools = tools or DeviceTools()
        nursery.start_soon(serve, t.device, tools)
        await t.device.hello(features={"mcp": True})
        await trio.testing.wait_all_tasks_blocked()
        return t, tools

    return meet


def told(dialogue: list[ChatMessage]) -> list[str]:
    return [f"{m.role}: {m.content}{' +call' * len(m.calls)}" for m in dialogue[1:]]


def shown(t) -> list[str]:
    return [event.body["text"] for event in t.device.of_kind("tts sentence_start")]


async def test_an_agent_may_leave_the_device_alone(autojump_clock, meet) -> None:
    shy = AgentSettings(name="shy", devices=("*",), tools=ToolSettings(device=False))
    t, _ = await meet(["Fine."], settings=Settings(agents=(shy,)))
    await t.device.detect("Louder!")
    await t.device.wait_for("tts stop")
    assert [tool.name for tool in t.llm.offered[0]] == ["end_conversation"]


async def test_the_device_is_asked_and_the_model_told(autojump_clock, meet) -> None:
    t, tools = await meet(["One moment. ", LOUDER], ["Now it is loud."], ["Fine."])
    await t.device.detect("Louder!")
    await t.device.wait_for("tts stop")
    assert tools.volume == 90
    assert [tool.name for tool in t.llm.offered[0]] == [
        "end_conversation",
        "self_get_device_status",
        "self_audio_speaker_set_volume",
    ]
    assert told(t.llm.dialogues[1]) == [
        "user: Louder!",
        "assistant: One moment.  +call",
        "tool: true",
    ]
    assert t.llm.dialogues[1][-1].call_id == LOUDER.id
    assert shown(t) == ["One moment.", "Now it is loud."]
    await t.device.detect("And now?")
    await t.device.wait_for("tts stop", count=2)
    assert told(t.llm.dialogues[2]) == [
        "user: Louder!",
        "assistant:  +call",
        "tool: true",
        "assistant: One moment. Now it is loud.",
        "user: And now?",
    ]


async def test_what_is_said_before_a_call_is_spoken_before_its_answer(autojump_clock, meet) -> None:
    t, _ = await meet(["One moment. ", LOUDER], ["Never."], tools=DeafTools())
    await t.device.detect("Louder!")
    await t.device.wait_for("tts sentence_start")
    assert shown(t) == ["One moment."]
    assert t.llm.generating == 0


async def test_several_calls_are_made_in_order(autojump_clock, meet) -> None:
    t, tools = await meet([LOUDER, STATUS], ["Done."])
    await t.device.detect("Louder!")
    await t.device.wait_for("tts stop")
    assert tools.calls == ["self.audio_speaker.set_volume", "self.get_device_status"]
    assert told(t.llm.dialogues[1])[1:] == [
        "assistant:  +call +call",
        "tool: true",
        'tool: {"audio_speaker":{"volume":90}}',
    ]


async def go_on_after_a_guess(t: Any) -> None:
    """Speak, pause until the language model was asked, speak on and hear the reply."""
    await t.device.listen("auto")
    await t.device.speak(0.8)
    await t.device.silence(0.4)
    assert len(t.llm.dialogues) == 1
    await t.device.speak(0.8)
    await t.device.silence(1.4)
    await t.device.wait_for("tts stop")


async def test_a_call_that_was_only_a_guess_is_never_made(autojump_clock, meet) -> None:
    t, tools = await meet([LOUDER], ["Done."], asr=ScriptedRecognizer("Loud", "Louder, please."))
    await go_on_after_a_guess(t)
    assert len(t.llm.dialogues) == 2
    assert not tools.calls
    assert shown(t) == ["Done."]


async def test_a_call_waits_until_the_speech_has_certainly_ended(autojump_clock, meet) -> None:
    t, tools = await meet([LOUDER], ["Done."], asr=ScriptedRecognizer("Louder"))
    await t.device.listen("auto")
    await t.device.speak(0.8)
    await t.device.silence(0.4)
    assert len(t.llm.dialogues) == 1
    assert not tools.calls
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop")
    assert tools.calls == ["self.audio_speaker.set_volume"]
    call = next(
        e for e in t.device.of_kind("mcp") if e.body["payload"].get("method") == "tools/call"
    )
    assert t.device.of_kind("tts start")[0].at <= call.at < t.device.of_kind("audio")[0].at


async def test_an_interrupted_call_is_remembered(autojump_clock, meet) -> None:
    t, tools = await meet([LOUDER], ["It is loud."], tools=DeafTools())
    await t.device.detect("Louder!")
    await t.device.wait_until(lambda: bool(tools.calls) or "tts start" in t.device.kinds)
    await trio.sleep(1)
    await t.device.abort()
    await t.device.wait_for("tts stop")
    await t.device.detect("Is it loud?")
    await t.device.wait_for("tts stop", count=2)
    assert tools.volume == 90
    assert told(t.llm.dialogues[1]) == [
        "user: Louder!",
        "assistant:  +call",
        "tool: Interrupted before an answer came; whether it was done is not known.",
        "user: Is it loud?",
    ]


async def test_what_a_call_gave_outlives_the_interruption_of_the_reply(
    autojump_clock, meet
) -> None:
    t, _ = await meet([LOUDER], ["A long answer comes of this. " * 5], ["Yes."])
    await t.device.detect("Louder!")
    await t.device.wait_for("audio", count=5)
    await t.device.detect("Is it loud?")
    await t.device.wait_for("tts stop", count=2)
    dialogue = told(t.llm.dialogues[-1])
    assert dialogue[1:3] == ["assistant:  +call", "tool: true"]
    assert dialogue[3].startswith("assistant: A")
    assert dialogue[4] == "user: Is it loud?"


async def test_a_device_that_does_not_answer_is_given_up(autojump_clock, meet) -> None:
    settings = Settings(tools=ToolSettings(device_seconds=3))
    t, _ = await meet([LOUDER], ["Sorry."], tools=DeafTools(), settings=settings)
    began = trio.current_time()
    await t.device.detect("Louder!")
    await t.device.wait_for("tts sentence_start")
    assert 3 <= trio.current_time() - began < 3.5
    assert told(t.llm.dialogues[1])[-1] == "tool: No answer within 3 s; it may still happen."


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (ToolCall("1", "open_door", "{}"), "There is no tool 'open_door'"),
        (ToolCall("1", "self_get_device_status", "{volume"), "The arguments are no JSON"),
        (ToolCall("1", "self_get_device_status", "[]"), "The arguments are no JSON object"),
        (attrs.evolve(LOUDER, arguments='{"volume": "x"}'), "The device failed: tools/call: Miss"),
    ],
)
async def test_a_mistake_is_told_to_the_model(autojump_clock, meet, call, answer) -> None:
    t, _ = await meet([call], ["I see."])
    await t.device.detect("Louder!")
    await t.device.wait_for("tts stop")
    assert t.llm.dialogues[1][-1].content.startswith(answer)
    assert shown(t) == ["I see."]


async def test_a_model_that_asks_on_has_to_answer(autojump_clock, meet) -> None:
    settings = Settings(tools=ToolSettings(calls_per_turn=2))
    t, tools = await meet([STATUS], settings=settings)
    await t.device.detect("How loud?")
    await t.device.wait_for("tts stop")
    assert len(tools.calls) == 2
    assert [len(dialogue) for dialogue in t.llm.dialogues] == [2, 4, 6, 8]
    assert t.llm.dialogues[-1][-1].content.startswith("Too many calls")
    assert shown(t) == ["Sorry, something went wrong on my side. Please try again."]
    await t.device.detect("Still there?")
    await t.device.wait_for("tts stop", count=2)
    assert len(tools.calls) == 4


async def test_a_model_that_has_spoken_need_not_answer_again(autojump_clock, meet) -> None:
    settings = Settings(tools=ToolSettings(calls_per_turn=1))
    t, _ = await meet(["Let me see. ", STATUS], settings=settings)
    await t.device.detect("How loud?")
    await t.device.wait_for("tts stop")
    assert shown(t) == ["Let me see."] * 3


async def test_a_flood_of_calls_is_not_read_to_its_end(autojump_clock, meet) -> None:
    settings = Settings(tools=ToolSettings(calls_per_turn=3))
    t, tools = await meet([STATUS] * 1000, ["Done."], settings=settings)
    await t.device.detect("How loud?")
    await t.device.wait_for("tts stop")
    assert len(tools.calls) == 3
    assert len(t.llm.dialogues[1][2].calls) == 4
    assert shown(t) == ["Done."]


async def test_the_model_hangs_up_with_a_farewell(autojump_clock, meet) -> None:
    t, _ = await meet([HANG_UP])
    await t.device.detect("I am going to sleep.")
    await t.device.wait_for_hang_up()
    assert (t.closing.code, t.closing.reason) == (NORMAL, "parted")
    assert shown(t) == ["Goodbye."]
    assert t.device.kinds[-1] == "tts stop"
    assert len(t.llm.dialogues) == 1


async def test_its_own_farewell_is_enough(autojump_clock, meet) -> None:
    t, _ = await meet(["Sleep well! ", HANG_UP])
    await t.device.detect("I am going to sleep.")
    await t.device.wait_for_hang_up()
    assert shown(t) == ["Sleep well!"]
    assert t.closing.code == NORMAL


async def test_a_guess_does_not_hang_up(autojump_clock, meet) -> None:
    t, _ = await meet([HANG_UP], ["Yes?"], asr=ScriptedRecognizer("Sleep", "Sleep is a word."))
    await go_on_after_a_guess(t)
    await trio.sleep(5)
    assert t.closing is None
    assert shown(t) == ["Yes?"]


async def test_who_interrupts_the_farewell_stays(autojump_clock, meet) -> None:
    t, _ = await meet(["Sleep well, and have a good time in your dreams! ", HANG_UP], ["Yes?"])
    await t.device.detect("I am going to sleep.")
    await t.device.wait_for("audio", count=3)
    await t.device.detect("Wait!")
    await t.device.wait_for("tts stop", count=2)
    await trio.sleep(5)
    assert t.closing is None


async def test_what_is_switched_off_is_not_offered(autojump_clock, meet) -> None:
    settings = Settings(tools=ToolSettings(end_conversation=False, device=False))
    t, _ = await meet([HANG_UP], ["Yes?"], settings=settings)
    await t.device.detect("Goodbye for now.")
    await t.device.wait_for("tts stop")
    assert t.llm.offered[0] == []
    assert shown(t) == ["Yes?"]


async def test_the_length_of_the_whole_reply_is_bounded(autojump_clock, meet) -> None:
    settings = Settings(conversation=ConversationSettings(max_reply_characters=50))
    t, tools = await meet(["x" * 30 + ". ", STATUS], ["y" * 60 + ".", STATUS], settings=settings)
    await t.device.detect("How loud?")
    await t.device.wait_for("tts stop")
    assert shown(t) == ["x" * 30 + ".", "y" * 18]
    assert len(tools.calls) == 1


class Own:
    """A tool of a test."""

    name = "own"
    description = ""
    source = "test"
    seconds = 9.0
    ends_reply = False

    def __init__(self, *, has_side_effect: bool, result: str | ToolError = "ok") -> None:
        self.parameters: Mapping[str, object] = {}
        self.has_side_effect = has_side_effect
        self._result = result
        self.calls = 0

    async def call(self, arguments: Mapping[str, object]) -> str:
        self.calls += 1
        await trio.sleep(1)
        if isinstance(self._result, ToolError):
            raise self._result
        return self._result


def calls_of(tool: Own) -> tuple[ToolCalls, TurnTrace, Clearance]:
    trace, clearance = TurnTrace(number=1, occasion="spoken"), Clearance()
    toolbox = Toolbox([tool], result_characters=100)
    calls = ToolCalls(toolbox, at_most=4, trace=trace.attempt(), clearance=clearance)
    return calls, trace, clearance


async def test_what_has_no_effect_need_not_wait(autojump_clock) -> None:
    calls, trace, _ = calls_of(Own(has_side_effect=False))
    await calls.answer("", [ToolCall("1", "own", "")])
    [stage] = trace.stages
    assert (stage.name, stage.engine, stage.outcome) == ("tool", "test", StageOutcome.OK)
    assert stage.ended == stage.began + 1


async def test_the_wait_for_certainty_is_no_part_of_the_stage(autojump_clock, nursery) -> None:
    tool = Own(has_side_effect=True)
    calls, trace, clearance = calls_of(tool)
    nursery.start_soon(calls.answer, "", [ToolCall("1", "own", "")])
    await trio.sleep(5)
    assert not (tool.calls)
    assert not (trace.stages)
    assert not (calls.messages)
    clearance.grant()
    await trio.sleep(2)
    assert trace.stages[0].ended == trace.stages[0].began + 1
    assert [message.content for message in calls.messages] == ["", "ok"]


async def test_nothing_begins_while_leave_is_withheld_and_what_began_goes_on(
    autojump_clock, nursery
) -> None:
    tool = Own(has_side_effect=True)
    calls, trace, clearance = calls_of(tool)
    clearance.grant()
    nursery.start_soon(calls.answer, "", [ToolCall("1", "own", ""), ToolCall("2", "own", "")])
    await trio.sleep(0.5)
    clearance.withhold()
    await trio.sleep(5)
    assert tool.calls == 1
    assert [message.content for message in calls.messages] == ["", "ok"]
    clearance.grant()
    await trio.sleep(2)
    assert tool.calls == 2
    assert trace.stages[1].began == 5.5


async def test_leave_that_is_withheld_at_once_was_none(autojump_clock, nursery) -> None:
    tool = Own(has_side_effect=True)
    calls, _, clearance = calls_of(tool)
    nursery.start_soon(calls.answer, "", [ToolCall("1", "own", "")])
    await trio.testing.wait_all_tasks_blocked()
    clearance.grant()
    clearance.withhold()
    await trio.sleep(5)
    assert not tool.calls


async def test_a_call_that_is_too_long_is_not_repeated(autojump_clock) -> None:
    tool = Own(has_side_effect=True)
    calls, _, _ = calls_of(tool)
    told = await calls.answer(
        "",
        [ToolCall("1", "own", '{"a": "' + "x" * 50_000 + '"}'), ToolCall("2", "o" * 50_000, "{")],
    )
    assert [(call.id, call.name, call.arguments) for call in told[0].calls] == [
        ("1", "own", "{}"),
        ("2", "o" * 64, "{"),
    ]
    assert "at most 8192" in told[1].content
    assert calls.messages == told
    assert not tool.calls


POEM = "春眠不觉晓处处闻啼鸟。"


async def interrupted(talk, nursery, heard: str):
    """A device that is told a poem and then to be louder, and is spoken to before that."""
    t = await talk(
        asr=ScriptedRecognizer(heard),
        llm=ScriptedLanguageModel([POEM, LOUDER], ["Fine."], piece_seconds=1.5),
        settings=Settings(listening=ListeningSettings(end_of_turn="silence")),
    )
    tools = DeviceTools()
    nursery.start_soon(serve, t.device, tools)
    await t.device.hello(features={"mcp": True})
    await trio.testing.wait_all_tasks_blocked()
    await t.device.listen("realtime")
    await t.device.detect("A poem, and louder!")
    await t.device.wait_for("audio", count=5)
    await t.device.speak(2)
    assert t.device.of_kind("tts stop")
    assert t.llm.generating == 0
    assert not tools.calls
    await t.device.silence(2)
    return t, tools


async def test_a_reply_that_is_interrupted_for_good_does_nothing_any_more(
    autojump_clock, talk, nursery
) -> None:
    t, tools = await interrupted(talk, nursery, "不要那么大声")
    await t.device.wait_for("tts stop", count=2)
    await trio.sleep(5)
    assert not tools.calls
    assert not any(message.calls for message in t.llm.dialogues[-1])


async def test_a_reply_that_goes_on_does_what_was_asked(autojump_clock, talk, nursery) -> None:
    t, tools = await interrupted(talk, nursery, "嗯嗯")
    await t.device.wait_for("tts stop", count=2)
    assert tools.calls == ["self.audio_speaker.set_volume"]
    assert len(t.device.of_kind("tts start")) == 2


async def test_a_call_cancelled_before_it_began_leaves_no_message(autojump_clock) -> None:
    tool = Own(has_side_effect=True)
    calls, _, clearance = calls_of(tool)
    clearance.grant()
    with trio.CancelScope() as scope:
        scope.cancel()
        await calls.answer("", [ToolCall("1", "own", "")])
    assert not (tool.calls)
    assert not (calls.messages)


async def test_a_failure_is_a_failed_stage(autojump_clock) -> None:
    calls, trace, _ = calls_of(Own(has_side_effect=False, result=ToolError("no such lamp")))
    messages = await calls.answer("Well.", [ToolCall("1", "own", "")])
    assert [message.content for message in messages] == ["Well.", "no such lamp"]
    assert trace.stages[0].outcome is StageOutcome.FAILED
    assert trace.stages[0].category == "ToolError"
