from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.session.chinese_numerals import cardinal, count, dialled, spelled
from xiaozhi_trio.session.readings import read_aloud
from xiaozhi_trio.session.spoken_text import spoken_text


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "零"),
        ("10", "十"),
        ("110", "一百一十"),
        ("10010", "一万零一十"),
        ("2000", "两千"),
        ("20000", "两万"),
        ("12000", "一万两千"),
        ("22", "二十二"),
        ("12.50", "十二点五零"),
        ("007", "零零七"),
        ("0.5", "零点五"),
        ("1" * 17, "一" * 17),
    ],
)
def test_cardinals(number: str, words: str) -> None:
    assert cardinal(number) == words


def test_counting_spelling_and_dialling() -> None:
    assert (count("2"), count("12"), count("2.5")) == ("两", "十二", "二点五")
    assert (spelled("2.101"), dialled("110")) == ("二点一零一", "幺幺零")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        # Dates and times.
        ("今天是2024-03-05", "今天是二零二四年三月五日"),
        ("截至2024/3/5为止", "截至二零二四年三月五日为止"),
        ("共2024-13-05件", "共两千零二十四减十三减零五件"),
        ("2024年3月5日", "二零二四年三月五日"),
        ("1939-1945年", "一九三九年到一九四五年"),
        ("2月有2天和2个月", "二月有两天和两个月"),
        ("在12:30到", "在十二点三十分到"),
        ("下午2:05", "下午两点零五分"),
        ("会议15:00-16:30", "会议十五点到十六点三十分"),
        ("用时3:05:20", "用时三点零五分二十秒"),
        ("90后喜欢", "九零后喜欢"),
        # Figures that name.
        ("打13800138000", "打幺三八零零幺三八零零零"),
        ("打+86 138-0013-8000", "打八六，幺三八，零零幺三，八零零零"),
        ("电话010-12345678", "电话零幺零，幺二三四五六七八"),
        ("客服400-800-1234", "客服四零零，八零零，幺二三四"),
        ("请拨打110报警", "请拨打幺幺零报警"),
        ("找12306买", "找幺二三零六买"),
        ("房间号308，在308室", "房间号三零八，在三零八室"),
        ("乘CA1234航班", "乘CA幺二三四航班"),
        ("邮编是100084", "邮编是幺零零零八四"),
        ("上163.com看", "上幺六三.com看"),
        ("编号12345678901234567890号", "编号幺二三四五六七八九零幺二三四五六七八九零号"),
        ("有12345678901234567890粒", "有幺二三四五六七八九零幺二三四五六七八九零粒"),
        # Versions and addresses.
        ("用v2.4.2版和3.11版", "用v二点四点二版和三点一一版"),
        ("地址是192.168.1.1", "地址是一九二点一六八点一点一"),
        # Money.
        ("价格¥99.9", "价格九十九点九元"),
        ("约￥1,299.00", "约一千二百九十九元"),
        ("约$3.5万", "约三点五万美元"),
        ("共€20和£2", "共二十欧元和两英镑"),
        # Percent, fractions, ratios, ranges.
        ("涨了0.5%", "涨了百分之零点五"),
        ("跌了 -2.5%", "跌了 负百分之二点五"),
        ("有3‰的人", "有千分之三的人"),
        ("约10%~20%", "约百分之十到百分之二十"),
        ("约10-20%", "约百分之十到百分之二十"),
        ("3/4杯水", "四分之三杯水"),
        ("血压120/80", "血压一百二十，八十"),
        ("屏幕16:9", "屏幕十六比九"),
        ("比分是3-2", "比分是三比二"),
        ("约10-20人", "约十到二十人"),
        ("约3~5天", "约三到五天"),
        # Units.
        ("今天25.5°C", "今天二十五点五摄氏度"),
        ("最低-3℃，2度", "最低零下三摄氏度，两度"),
        ("约98.6°F", "约九十八点六华氏度"),
        ("气温-3~5℃", "气温负三到五摄氏度"),
        ("速度100km/h", "速度一百公里每小时"),
        ("约60公里/小时", "约六十公里每小时"),
        ("面积120平方米，即120m²", "面积一百二十平方米，即一百二十平方米"),
        ("重2kg，高1.5mm", "重两公斤，高一点五毫米"),
        ("吃30mg，喝200ml", "吃三十毫克，喝二百毫升"),
        ("电压220V，功率5W", "电压二百二十伏，功率五瓦"),
        ("内存16GB", "内存十六GB"),
        ("月薪2w", "月薪两万"),
        ("从2km-3km", "从两公里到三公里"),
        # Counting.
        ("2个人买了12本书和200张纸", "两个人买了十二本书和二百张纸"),
        ("第2个，第3名", "第二个，第三名"),
        ("他上2年级", "他上二年级"),
        ("有100+人", "有一百多人"),
        ("有1,234,567人", "有一百二十三万四千五百六十七人"),
        # Calculation.
        ("2+3×4=14对吗", "二加三乘四等于十四对吗"),
        ("5-3=2，3-5=-2吧", "五减三等于二，三减五等于负二吧"),
        ("x²+y³=π吗", "x的平方加y的立方等于派吗"),
        ("要≥18岁", "要大于等于十八岁"),
        ("误差±2，约≈3", "误差正负二，约约等于三"),
        # Roman numerals and other shapes of digits.
        ("路易XIV和第Ⅲ章", "路易十四和第三章"),
        ("共３个％", "共三个%"),
        # Beside English.
        ("我用iPhone 15 Pro", "我用iPhone 十五 Pro"),
        ("用GPT-4和iPhone15", "用GPT-4和iPhone15"),
        ("在5G和3D里", "在五G和三D里"),
        ("学C++语言", "学C++语言"),
        ("男/女都行", "男或女都行"),
    ],
)
def test_chinese(written: str, read: str) -> None:
    assert read_aloud(written) == read
    assert read_aloud(read) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("It is 50%-60% humid.", "It is 50% to 60% humid."),
        ("The area is 10 m².", "The area is 10 square meters."),
        ("The room has 5 m³ of air.", "The room has 5 cubic meters of air."),
        ("Version 2.4.2 is out.", "Version 2 point 4 point 2 is out."),
        ("Go to 192.168.1.1 now.", "Go to 192 dot 168 dot 1 dot 1 now."),
        ("So 5 - 3 = 2 is right.", "So 5 minus 3 = 2 is right."),
        ("The score is 3:2.", "The score is 3 to 2."),
        ("Call me at (555) 123-4567.", "Call me at 5 5 5, 1 2 3, 4 5 6 7."),
        ("The value is ≈3 ±1.", "The value is about 3 plus or minus 1."),
        ("It uses 120 V and 5W.", "It uses 120 volts and 5 watts."),
        ("Version 2.4.2 is 5 V at most.", "Version 2 point 4 point 2 is 5 volts at most."),
        ("It is x² + 1.", "It is x squared + 1."),
        # What the engines read themselves.
        ("It is 12:30 on March 5, and 25°C.", "It is 12:30 on March 5, and 25°C."),
        ("Read pages 5-10 for $3.50.", "Read pages 5-10 for $3.50."),
        ("The 1st and 22nd of 1998.", "The 1st and 22nd of 1998."),
    ],
)
def test_english(written: str, read: str) -> None:
    assert read_aloud(written) == read
    assert read_aloud(read) == read


@pytest.mark.parametrize(
    "sentence",
    [
        "これは2個です。",
        "사과 2개 있어요.",
        "Es sind 5 - 3 = 2 Äpfel.",
        "La zone fait 10 m².",
        "4+5=9",
        "The word 你好 has 2 characters.",
        "没有数字。",
        "",
    ],
)
def test_other_sentences_stay(sentence: str) -> None:
    assert read_aloud(sentence) == sentence


def test_figures_are_read_in_what_is_said() -> None:
    assert spoken_text("**气温** 25℃，x^2=4") == "气温 二十五摄氏度，x的平方等于四"


@given(st.text(st.sampled_from("你个0129.,:/-~%°℃kmgV²$¥第年XI+=()（ aA"), max_size=30))
def test_any_sentence_can_be_read(sentence: str) -> None:
    for text in (sentence, "你" * 20 + sentence, "it is " + sentence):
        assert bool(read_aloud(text).strip()) is bool(text.strip())


@pytest.mark.parametrize(
    "part", ["1", "1.", "1,", "1-", "1:2", "a1", "-", "1/", "电话1", "1%~", "v1.", "² "]
)
def test_no_sentence_takes_long(part: str) -> None:
    for language in ("你" * 60_000, "it is "):
        begin = process_time()
        read_aloud(language + part * 20_000)
        assert process_time() - begin < 3
