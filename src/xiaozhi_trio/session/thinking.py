"""From the dialogue to the sentences of a reply, while the language model still writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import ToolCall, engine_of
from xiaozhi_trio.session.segmentation import SentenceSegmenter
from xiaozhi_trio.session.stage import stage_deadline
from xiaozhi_trio.session.unspoken import UnspokenFilter
from xiaozhi_trio.telemetry.turn_trace import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xiaozhi_trio.config.settings import ConversationSettings
    from xiaozhi_trio.engines.protocols import ChatMessage, LanguageModel
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.session.tool_calls import ToolCalls
    from xiaozhi_trio.telemetry.turn_trace import Attempt


async def think(
    slot: EngineSlot[LanguageModel],
    dialogue: Sequence[ChatMessage],
    sentences: trio.MemorySendChannel[str],
    *,
    tools: ToolCalls,
    settings: ConversationSettings,
    trace: Attempt,
    on_first_sentence: Callable[[str], None],
) -> None:
    """Send the reply to `dialogue` sentence by sentence, then close `sentences`.

    Where the model asks for tools, it is told what came of them and goes on, as often as
    `tools` allows. What it says before is spoken meanwhile. Raises `EngineError`; the
    sentences sent before stay good. Ends early, without an error, where nobody receives
    them any more.
    """

    def begin(sentence: str) -> None:
        trace.mark(Moment.FIRST_SENTENCE)
        on_first_sentence(sentence)

    reply = _Reply(sentences, begin, room=settings.max_reply_characters)
    dialogue = list(dialogue)
    async with sentences:
        try:
            while True:
                is_last = tools.is_exhausted
                calls: list[ToolCall] = []
                with (
                    trace.stage("llm", engine=slot.state.engine) as stage,
                    stage_deadline("llm", settings.first_token_seconds) as deadline,
                ):
                    model = await slot.ready()
                    async with model.reply(dialogue, tools.specs) as pieces:
                        stage.engine = engine_of(pieces, model)
                        async for piece in pieces:
                            trace.mark(Moment.FIRST_TOKEN)
                            deadline.pause()
                            if isinstance(piece, ToolCall):
                                calls.append(piece)
                            else:
                                await reply.add(piece)
                            if reply.is_full or len(calls) > tools.left:
                                break
                            deadline.renew()
                        deadline.pause()
                said = await reply.end()
                if not calls or reply.is_full:
                    return
                if is_last:
                    if reply.has_words:
                        return
                    raise EngineError(
                        "calls tools and says nothing",
                        engine=slot.state.engine,
                        category=EngineErrorCategory.BAD_RESPONSE,
                    )
                dialogue += await tools.answer(said, calls)
                if tools.ended_reply:
                    return
        except trio.BrokenResourceError:
            return


class _Reply:
    """The text so far, passed on sentence by sentence."""

    def __init__(
        self,
        sentences: trio.MemorySendChannel[str],
        on_first_sentence: Callable[[str], None],
        *,
        room: int,
    ) -> None:
        self._unspoken = UnspokenFilter()
        self._segmenter = SentenceSegmenter()
        self._sentences = sentences
        self._on_first_sentence = on_first_sentence
        self._room = room
        self._said = ""
        self.has_words = False
        """There was something whole to be spoken."""

    @property
    def is_full(self) -> bool:
        """It may not become any longer."""
        return self._room <= 0

    async def add(self, piece: str) -> None:
        piece = piece[: self._room]
        self._room -= len(piece)
        self._said += piece
        await self._pass_on(self._segmenter.feed(self._unspoken.feed(piece)))

    async def end(self) -> str:
        """It ends or pauses here; gives all that was said since it began or went on."""
        await self._pass_on(self._segmenter.feed(self._unspoken.flush()))
        await self._pass_on(self._segmenter.flush())
        said, self._said = self._said, ""
        return said

    async def _pass_on(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if not self.has_words:
                self._on_first_sentence(sentence)
                self.has_words = True
            await self._sentences.send(sentence)
