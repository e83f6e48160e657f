"""What units, currencies and signs behind or between figures are called in Chinese.

Units go by their everyday names (公斤, 公里). Those that are said as letters (GB, Mbps)
are not here.
"""

from __future__ import annotations

from typing import Final

MONEY: Final = {
    "¥": "元",
    "$": "美元",
    "US$": "美元",
    "HK$": "港元",
    "€": "欧元",
    "£": "英镑",
    "₩": "韩元",
}
"""In front of the amount; the words go behind it."""

UNITS: Final = {
    "km/h": "公里每小时",
    "m/s": "米每秒",
    "km²": "平方公里",
    "cm²": "平方厘米",
    "mm²": "平方毫米",
    "m²": "平方米",
    "㎡": "平方米",
    "cm³": "立方厘米",
    "m³": "立方米",
    "km": "公里",
    "cm": "厘米",
    "mm": "毫米",
    "μm": "微米",
    "nm": "纳米",
    "m": "米",
    "kg": "公斤",
    "mg": "毫克",
    "g": "克",
    "mL": "毫升",
    "ml": "毫升",
    "L": "升",
    "ms": "毫秒",
    "min": "分钟",
    "s": "秒",
    "h": "小时",
    "kWh": "千瓦时",
    "kW": "千瓦",
    "W": "瓦",
    "w": "万",
    "kV": "千伏",
    "V": "伏",
    "mAh": "毫安时",
    "mA": "毫安",
    "GHz": "吉赫兹",
    "MHz": "兆赫兹",
    "kHz": "千赫兹",
    "Hz": "赫兹",
    "dB": "分贝",
    "kcal": "千卡",
    "hPa": "百帕",
    "mmHg": "毫米汞柱",
    "rpm": "转每分钟",
    "fps": "帧每秒",
    "px": "像素",
    "°": "度",
}

SIGNS: Final = {
    "≈": "约等于",
    "≠": "不等于",
    "≥": "大于等于",
    "≤": "小于等于",
    "±": "正负",
    "√": "根号",
    "∞": "无穷大",
    "÷": "除以",
    "=": "等于",
    "²": "的平方",
    "³": "的立方",
    "π": "派",
}
"""Those that mean the same wherever they stand."""
SIGNS_BETWEEN: Final = {"+": "加", "×": "乘", ">": "大于", "<": "小于"}
"""Those that mean something only between two values."""


COUNTED: Final = (
    "个 位 名 只 条 张 本 次 天 人 杯 碗 瓶 件 辆 台 部 秒 周 块 元 套 家 座 双 对 份 种 "
    "间 段 句 首 "
    "页 倍 岁 米 升 克 斤 吨 千 万 亿 点 年 小时 分钟 公里 公斤 平方 立方 厘米 毫米 毫升"
).split()
"""What two of are 两."""
