"""From the dialogue to the sentences of a reply, while the language model still writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.session.segmentation import SentenceSegmenter
from xiaozhi_trio.session.stage import stage_deadline
from xiaozhi_trio.session.unspoken import UnspokenFilter
from xiaozhi_trio.telemetry.turn_trace import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xiaozhi_trio.config.settings import ConversationSettings
    from xiaozhi_trio.engines.protocols import ChatMessage, LanguageModel
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.telemetry.turn_trace import Attempt


async def think(
    slot: EngineSlot[LanguageModel],
    dialogue: Sequence[ChatMessage],
    sentences: trio.MemorySendChannel[str],
    *,
    settings: ConversationSettings,
    trace: Attempt,
    on_first_sentence: Callable[[str], None],
) -> None:
    """Send the reply to `dialogue` sentence by sentence, then close `sentences`.

    Raises `EngineError`; the sentences sent before stay good. Ends early, without an
    error, where nobody receives them any more.
    """

    def begin(sentence: str) -> None:
        trace.mark(Moment.FIRST_SENTENCE)
        on_first_sentence(sentence)

    reply = _Reply(sentences, begin)
    room = settings.max_reply_characters
    async with sentences:
        try:
            with (
                trace.stage("llm", engine=slot.state.engine),
                stage_deadline("llm", settings.first_token_seconds) as deadline,
            ):
                model = await slot.ready()
                async with model.reply(dialogue) as pieces:
                    async for piece in pieces:
                        trace.mark(Moment.FIRST_TOKEN)
                        deadline.pause()
                        await reply.add(piece[:room])
                        room -= len(piece)
                        if room <= 0:
                            break
                        deadline.renew()
                    deadline.pause()
            await reply.end()
        except trio.BrokenResourceError:
            return


class _Reply:
    """The text so far, passed on sentence by sentence."""

    def __init__(
        self, sentences: trio.MemorySendChannel[str], on_first_sentence: Callable[[str], None]
    ) -> None:
        self._unspoken = UnspokenFilter()
        self._segmenter = SentenceSegmenter()
        self._sentences = sentences
        self._on_first_sentence: Callable[[str], None] | None = on_first_sentence

    async def add(self, piece: str) -> None:
        await self._pass_on(self._segmenter.feed(self._unspoken.feed(piece)))

    async def end(self) -> None:
        await self._pass_on(self._segmenter.feed(self._unspoken.flush()))
        await self._pass_on(self._segmenter.flush())

    async def _pass_on(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if self._on_first_sentence is not None:
                self._on_first_sentence(sentence)
                self._on_first_sentence = None
            await self._sentences.send(sentence)
