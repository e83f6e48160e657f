from __future__ import annotations

import pytest

from xiaozhi_trio.session.backchannel import is_backchannel


@pytest.mark.parametrize(
    "text",
    "嗯|嗯嗯。|哦|对对|对对对！|是的|是吗？|好的好的|嗯，对啊|没错|这样啊|原来如此|uh-huh|Uh-huh.|mm-hmm"
    "|Mhm|yeah|Yeah, right.|okay|OK!|Right.|I see.|Oh, really?|got it|yeah yeah yeah|うん|네".split(
        "|"
    ),
)
def test_a_listener_says_go_on(text: str) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "。",
        "stop",
        "Wait.",
        "no",
        "等一下",
        "不对",
        "不是",
        "停",
        "嗯，等一下",
        "对了",
        "okay stop",
        "yeah but",
        "right now",
        "好了",
        "好难",
        "是什么",
        "what",
        "why",
        "I see a dog",
        "yeah yeah yeah yeah yeah yeah yeah",
        "okay what time is it",
        "别说了",
        "换一个",
        "好的，那明天呢",
        "really loud",
    ],
)
def test_a_speaker_takes_the_floor(text: str) -> None:
    assert not is_backchannel(text)
