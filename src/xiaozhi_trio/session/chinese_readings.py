"""Figures, units and signs in a Chinese sentence as words that are read only one way.

Text front ends differ in what they make of figures: that of misaki, which the embedded
voice uses, reads 120平方米 like a telephone number and 1.5mm as metre-metre. So no figure
is left to them; what is in characters already, no engine reads again. Words in letters
stay, figures in them included (GPT-4, iPhone15): the engine speaks them in English.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import regex

from xiaozhi_trio.session.chinese_numerals import LONGEST_NUMBER, cardinal, count, dialled, spelled
from xiaozhi_trio.session.chinese_units import COUNTED, MONEY, SIGNS, SIGNS_BETWEEN, UNITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PLAIN: Final = {
    **{ord("０") + digit: str(digit) for digit in range(10)},
    **{ord("Ⅰ") + place: numeral for place, numeral in enumerate("一二三四五六七八九十")},
    **{
        ord(wide): plain
        for wide, plain in zip("％－＋＝￥／＄−–～〜〇", "%-+=¥/$--~~零", strict=True)
    },
}
_ROMAN: Final = {
    numeral: str(value)
    for value, numeral in enumerate(
        "II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX".split(), start=2
    )
    if len(numeral) > 1
}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(regex.escape(word) for word in sorted(words, key=len, reverse=True))


_NUMBER = r"\d++(?:\.\d++)?+"
_ALONE = r"(?<![A-Za-z0-9.])(?<![A-Za-z]-)"
# Behind a letter or figure the sign is a hyphen or says "to".
_MINUS = r"(?<![A-Za-z0-9.)%])-"
_UNIT = rf"(?:{_any_of(UNITS)})(?![A-Za-z0-9²³/])"
_DEGREES = r"(?:°[CF]|[℃℉度])"
_RATED = "公里|千米|[米元次升克斤个人度块字帧转步吨]"
_RATED_BY = "小时|分钟|平方米|立方米|公斤|千克|[秒天日周月年斤人个升米次瓶盒包件台度吨]"
_CALLED = (
    "号码|电话|手机|热线|拨打|致电|客服|编号|单号|卡号|账号|尾号|学号|工号|邮编|密码|验证码|代码"
    "|房间号?|门牌号?|航班号?|车次|微信号?|QQ号?"
)
# Of China: carriers, railway, consumers, cities, employment, tax, banks.
_SERVICES = r"10010|10086|12306|12315|12345|12333|12366|955\d\d"
_TIME = r"([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])"
_DIGIT_RUN = regex.compile(r"\d++")
_NO_CENTS = regex.compile(r"\.0++\Z")


def _date(match: regex.Match[str]) -> str:
    year, _, month, day = match.groups()
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return match[0]
    month, day = (cardinal(str(int(part))) for part in (month, day))
    return f"{spelled(year)}年{month}月{day}日"


def _time(match: regex.Match[str]) -> str:
    hour, minute, second = match.groups()
    words = count(str(int(hour))) + "点"
    if minute != "00" or second:
        words += cardinal(minute) + "分"
    return words + (cardinal(second) + "秒" if second else "")


def _ratio(match: regex.Match[str]) -> str:
    return f"{cardinal(match[1])}比{cardinal(match[2])}"


def _dial(match: regex.Match[str]) -> str:
    return "，".join(dialled(run) for run in _DIGIT_RUN.findall(match[0]))


def _spell(match: regex.Match[str]) -> str:
    return spelled(match[0])


def _dash(match: regex.Match[str]) -> str:
    """Between two figures: most often a range, and what falls is a difference."""
    return match[1] + ("到" if float(match[1]) < float(match[2]) else "减")


def _percent(match: regex.Match[str]) -> str:
    minus, number, sign = match.groups()
    return ("负" if minus else "") + ("千" if sign == "‰" else "百") + "分之" + cardinal(number)


def _temperature(match: regex.Match[str]) -> str:
    minus, degrees, scale = match.groups()
    words = "零下" if minus else ""
    if scale == "度":
        return words + count(degrees) + scale
    return words + cardinal(degrees) + ("华氏度" if scale in {"°F", "℉"} else "摄氏度")


def _money(match: regex.Match[str]) -> str:
    currency, amount, large = match.groups()
    return count(_NO_CENTS.sub("", amount)) + large + MONEY[currency]


def _fraction(match: regex.Match[str]) -> str:
    above, below = match.groups()
    if int(below) == 0 or int(above) > int(below) > 10:
        # Blood pressure and the like: two figures, neither a part of the other.
        return f"{cardinal(above)}，{cardinal(below)}"
    return f"{cardinal(below)}分之{cardinal(above)}"


def _measure(match: regex.Match[str]) -> str:
    minus, number, unit = match.groups()
    return ("负" if minus else "") + count(number) + UNITS[unit]


def _amount(match: regex.Match[str]) -> str:
    word, minus, number, counted = match.groups()
    if word is not None:
        return word
    return ("负" if minus else "") + (count if counted is not None else cardinal)(number)


_RULES: Final[tuple[tuple[regex.Pattern[str], Callable[[regex.Match[str]], str]], ...]] = tuple(
    (regex.compile(pattern), reading)
    for pattern, reading in (
        (r"(?<![\d.,])\d{1,3}(?:,\d{3})++(?![\d,])", lambda grouped: grouped[0].replace(",", "")),
        # Dates and times.
        (r"(?<![\d.])([12]\d{3})([-/.])(\d{1,2})\2(\d{1,2})(?![\d.])", _date),
        (
            r"(?<!\d)(1\d{3}|20\d\d)年?\s?[-~]\s?(1\d{3}|20\d\d)(?!\d)",
            lambda years: f"{spelled(years[1])}年到{spelled(years[2])}",
        ),
        (r"(?<!\d)\d{4}(?=\s?年(?!级))", _spell),
        (r"(?<!\d)[5-9]0(?=后(?![天年月]))", _spell),
        (rf"(?<![\d:]){_TIME}\s?[-~]\s?(?=\d)", lambda time: _time(time) + "到"),
        (r"(?:比分|比例|比率)[是为]?\s?\K(\d{1,3})\s?[:-]\s?(\d{1,3})(?!\d)", _ratio),
        (rf"(?<![\d:]){_TIME}", _time),
        (r"(?<![\d:])(\d{1,3}):(\d{1,3})(?![\d:])", _ratio),
        # Figures that name something are said one by one.
        (r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)", _dial),
        (r"(?<![\d.])(?:0\d{2,3}-\d{7,8}|[48]00-?\d{3}-?\d{4})(?!\d)", _dial),
        (r"(?<=[拨打警])1[12]\d(?!\d)", _dial),
        (rf"(?<!\d)(?:{_SERVICES})(?!\d|\s?(?:{_any_of(COUNTED)}))", _dial),
        (rf"(?:{_CALLED})[是为:：]?\s?\K\d[\d-]{{2,}}+(?!\.\d)", _dial),
        (r"(?<![\d.])\d{3,4}(?=房|号房|室|路公交|路车|次列车|次航班)", _dial),
        (r"(?<![A-Za-z])([A-Z]{1,2})(\d{3,4})(?![\d.A-Za-z])", lambda m: m[1] + dialled(m[2])),
        (r"(?<=(?<![A-Za-z])[vV])\d++(?:\.\d++)++", _spell),
        (r"(?<![A-Za-z\d.])\d++(?:\.\d++){2,}+", _spell),
        (r"(?<![A-Za-z\d.])\d++(?=\.[A-Za-z])", _dial),
        (rf"(?<![A-Za-z\d.])\d{{{LONGEST_NUMBER + 1},}}+", _dial),
        # What stands between two figures.
        (rf"({_ALONE}{_NUMBER})\s?-\s?(?={_NUMBER}\s?=)", lambda m: m[1] + "减"),
        (
            rf"{_ALONE}({_NUMBER})%?\s?[-~]\s?({_NUMBER})%",
            lambda m: f"百分之{cardinal(m[1])}到百分之{cardinal(m[2])}",
        ),
        (rf"({_ALONE}{_NUMBER})\s?-\s?(?=({_NUMBER}))", _dash),
        (rf"(?<=\d|{_DEGREES}|%|[kcm]?m|[km]?g|元)\s?[~-]\s?(?=-?\d)", lambda _: "到"),
        (rf"(?<={_RATED})/(?={_RATED_BY})", lambda _: "每"),
        (r"(?<=\p{Han})/(?=\p{Han})", lambda _: "或"),
        (r"(?<=\d)\+(?=\p{Han})", lambda _: "多"),
        # Amounts of something.
        (rf"({_any_of(MONEY)})\s?({_NUMBER})\s?([万亿]*+)", _money),
        (rf"({_MINUS})?+(?<![A-Za-z.\d])({_NUMBER})\s?([%‰])", _percent),
        (rf"({_MINUS})?+(?<![A-Za-z.\d])({_NUMBER})\s?({_DEGREES})", _temperature),
        (r"(?<![\d/.A-Za-z])(\d{1,4})/(\d{1,4})(?![\d/.])", _fraction),
        (rf"({_MINUS})?+(?<![A-Za-z.\d])({_NUMBER})\s?({_UNIT})", _measure),
        # Roman numerals behind a name.
        (rf"(?<=\p{{Han}})(?:{_any_of(_ROMAN)})(?![A-Za-z])", lambda m: cardinal(_ROMAN[m[0]])),
        # All other figures, those in words excepted.
        (
            r"([A-Za-z][A-Za-z0-9]*+(?:[-.'_][A-Za-z0-9]++)*+)"
            rf"|({_MINUS})?+({_NUMBER})((?<!第{_NUMBER})(?=\s?(?:{_any_of(COUNTED)})(?!级)))?+",
            _amount,
        ),
        # Signs.
        (rf"[{regex.escape(''.join(SIGNS))}]", lambda sign: SIGNS[sign[0]]),
        (
            rf"(?<=[\w)）])\s?([{regex.escape(''.join(SIGNS_BETWEEN))}])\s?(?=[\w(（])",
            lambda sign: SIGNS_BETWEEN[sign[1]],
        ),
    )
)


def read_chinese(sentence: str) -> str:
    """`sentence`, which is Chinese, with its figures and signs in characters."""
    text = sentence.translate(_PLAIN)
    for pattern, reading in _RULES:
        text = pattern.sub(reading, text)
    return text
