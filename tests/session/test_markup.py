from __future__ import annotations

import pytest

from xiaozhi_trio.session.markup import joined_by_pauses, without_markup


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ([], ""),
        (["", "好", ""], "好"),
        (["苹果", "梨", "pear"], "苹果，梨，pear"),
        (["apple", "pear"], "apple, pear"),
        (["说完。", "再说"], "说完。再说"),
        (["Done.", "Again"], "Done. Again"),
    ],
)
def test_parts_are_joined_by_what_makes_a_pause(parts: list[str], joined: str) -> None:
    assert joined_by_pauses(parts) == joined


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("", ""),
        ("普通的一句话。", "普通的一句话。"),
        ("  plain\tspeech  ", "plain speech"),
        # Lines.
        ("# 标题", "标题"),
        ("### **Title** here", "Title here"),
        ("##标题", "标题"),
        ("#1 of all", "#1 of all"),
        ("**标题。**\n正文", "标题。正文"),
        ("“好。”\n正文", "“好。”正文"),
        ("> 引用\n> 第二行", "引用，第二行"),
        ("- 苹果\n* 梨\n+ 香蕉\n• 桃", "苹果，梨，香蕉，桃"),
        ("- [x] done\n- [ ] to do", "done, to do"),
        ("-5度", "-5度"),
        ("标题\n====\n正文", "标题，正文"),
        ("上文。\n---\n下文", "上文。下文"),
        ("| 名字 | 年龄 |\n|:--|--:|\n| 小明 | 5 |", "名字，年龄，小明，5"),
        ("| a | | b", "a, b"),
        # Emphasis, also half of it.
        ("**注意！**请勿触摸", "注意！请勿触摸"),
        ("**注意！", "注意！"),
        ("请勿**", "请勿"),
        ("这是*重点*和***要点***吧", "这是重点和要点吧"),
        ("*italic* and __bold__ and _both_", "italic and bold and both"),
        ("3*4=12, 3 * 4 = 12", "3*4=12, 3 * 4 = 12"),
        ("snake_case and __init__", "snake_case and init"),
        ("~~旧的~~新的", "旧的新的"),
        ("好呀~~~", "好呀~"),
        # Code.
        ("用`ls -l`命令", "用ls -l命令"),
        ("用```ls```命令", "用ls命令"),
        ("```python", ""),
        ("```python\nprint(1)\n```\n好", "好"),
        # Links.
        ("[点击](https://a.b/c(d)?e=1)这里", "点击这里"),
        ('[here](https://a.b "a title") now', "here now"),
        ("![图](x.png)完", "图完"),
        ("[![图](a.png)](https://b.c)完", "图完"),
        ("[点击](https://a.b", "点击"),
        ("[点击](", "点击"),
        ("这里](https://a.b)完", "这里 完"),
        ("<https://a.b/c> <mailto:me@a.b> <me@a.b>", "https://a.b/c me@a.b me@a.b"),
        ("如[^1]所述【4†source】。", "如所述。"),
        ("[笑] 好 [1]", "[笑] 好 [1]"),
        # HTML.
        ("<b>你好</b><br/>再见<br>", "你好，再见"),
        ('<span class="x">one</span> two', "one two"),
        ("a < b and c > d", "a < b and c > d"),
        ("Tom &amp; Jerry &lt;b&gt;&#65;&#x42; AT&T a&b=c", "Tom & Jerry AB AT&T a&b=c"),
        ("<think>嗯</think>好的<|im_end|>", "好的"),
        ("<tool_call>{}", ""),
        # LaTeX.
        (r"$x^2 + \frac{1}{2}$", "x^2 + 1/2"),
        (r"$$a \times b$$", "a × b"),
        ("$$\n\\pi r\n$$", "pi r"),
        (r"\(\pi r\) 和 \[E=mc\,2\]", "pi r 和 E=mc 2"),
        (r"其中$x = 1", "其中x = 1"),
        (r"\text{速度} $\text{速度}$", r"\text{速度} 速度"),
        ("$5 and $10", "$5 and $10"),
        # Escapes and what has no shape.
        (r"\# 1\. \*a\* 3 \* 4", "# 1. a 3 * 4"),
        ("a\ud800b\x00c\u202ed\ufeffe\u200b\ue000f", "abcdef"),
        ("a\u200d\u200c。", "a。"),
        ("a\r\nb\u2028c\x0bd", "a, b, c, d"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_markup_goes(sentence: str, text: str) -> None:
    assert without_markup(sentence) == text


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("1. 打开应用", "1，打开应用"),
        ("1.打开应用", "1，打开应用"),
        ("2、关上它", "2，关上它"),
        ("3) Open it", "3, Open it"),
        ("3.14 is pi", "3.14 is pi"),
        ("2024. It was", "2024. It was"),
        ("1.", "1."),
        ("看https://www.example.com/a/b?c=1。好", "看example.com。好"),
        ("See http://u:p@h.com:80/x, or www.a.org.", "See h.com, or a.org."),
        ("[https://a.b/c](https://a.b/c)", "a.b"),
        ("https://192.168.1.2:8003/xiaozhi/", "192.168.1.2"),
    ],
)
def test_aloud_items_are_counted_and_addresses_named(sentence: str, text: str) -> None:
    assert without_markup(sentence, aloud=True) == text
