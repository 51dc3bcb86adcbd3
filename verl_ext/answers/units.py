"""Spellings of units. Each spelling maps to one symbol; no unit is converted into another."""

from collections.abc import Mapping

# Other spellings of each symbol, in lower case; plural forms with "s" are added.
_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "mm": ("millimeter", "millimetre", "毫米", "мм", "ミリメートル", "밀리미터"),
    "cm": ("centimeter", "centimetre", "厘米", "公分", "см", "センチメートル", "センチ", "센티미터"),
    "dm": ("decimeter", "decimetre", "分米", "дм"),
    "m": ("meter", "metre", "米", "公尺", "м", "метр", "метра", "метров", "metro", "mètre", "メートル", "미터"),
    "km": ("kilometer", "kilometre", "千米", "公里", "км", "キロメートル", "킬로미터"),
    "nm": ("nanometer", "nanometre", "纳米"),
    "μm": ("um", "micrometer", "micrometre", "micron", "微米"),
    "unit": (),
    "in": ("inch", "inches", "英寸"),
    "ft": ("foot", "feet", "英尺"),
    "yd": ("yard",),
    "mi": ("mile", "英里"),
    "mg": ("milligram", "毫克", "мг"),
    "g": ("gram", "克", "г", "グラム", "그램"),
    "kg": ("kilogram", "kilo", "kgs", "千克", "公斤", "кг", "キログラム", "킬로그램"),
    "t": ("ton", "tonne", "metric ton", "metric tonne", "吨", "т"),
    "lb": ("pound", "lbs"),
    "oz": ("ounce",),
    "stone": (),
    "mL": ("ml", "milliliter", "millilitre", "毫升", "мл"),
    "cL": ("centiliter", "centilitre", "厘升"),
    "dL": ("deciliter", "decilitre", "分升"),
    "L": ("l", "liter", "litre", "升", "л", "リットル", "리터"),
    "cup": (),
    "pt": ("pint",),
    "qt": ("quart",),
    "gallon": ("gal",),
    "floz": ("fluid ounce",),
    "tbsp": ("tablespoon",),
    "tsp": ("teaspoon",),
    "ha": ("hectare", "公顷"),
    "acre": (),
    "nmi": ("nautical mile", "海里"),
    "ly": ("light year", "lightyear", "光年"),
    "Å": ("angstrom", "ångström"),
    "knot": (),
    "ms": ("millisecond", "毫秒"),
    "s": ("sec", "secs", "second", "秒", "秒钟", "с", "сек", "초"),
    "min": ("minute", "mins", "分钟", "分鐘", "мин", "분"),
    "h": ("hr", "hrs", "hour", "小时", "小時", "时", "ч", "час", "часа", "часов", "時間", "시간"),
    "day": ("天", "日", "день", "дня", "дней"),
    "week": ("wk", "wks", "周", "星期"),
    "month": ("mo", "mos", "月", "个月"),
    "year": ("yr", "yrs", "年", "год", "года", "лет"),
    "century": ("centuries", "世纪"),
    "Hz": ("hertz", "hz", "赫兹", "Гц"),
    "N": ("newton", "牛", "牛顿", "Н"),
    "J": ("joule", "焦", "焦耳", "Дж"),
    "kJ": ("kilojoule", "千焦"),
    "W": ("watt", "瓦", "瓦特", "Вт"),
    "kW": ("kilowatt", "kw", "千瓦"),
    "kV": ("kilovolt", "kv", "千伏"),
    "kHz": ("kilohertz", "khz"),
    "MHz": ("megahertz", "mhz"),
    "V": ("volt", "伏", "伏特", "В"),
    "Ω": ("ohm", "欧", "欧姆", "Ом"),
    "kΩ": ("kilohm",),
    "MΩ": ("megohm",),
    "Pa": ("pascal", "帕", "Па"),
    "kPa": ("kilopascal", "千帕"),
    "atm": ("atmosphere",),
    "psi": (),
    "mmHg": ("mm hg", "millimeters of mercury"),
    "hp": ("horsepower", "马力"),
    "A": ("ampere", "amp", "安", "安培"),
    "mA": ("milliamp",),
    "μA": ("microamp",),
    "C": ("coulomb", "库仑"),
    "F": ("farad", "法拉"),
    "T": ("tesla", "特斯拉"),
    "K": ("kelvin", "kelvins", "开尔文"),
    "kcal": ("kilocalorie",),
    "cal": ("calorie", "卡路里"),
    "bit": ("比特",),
    "byte": ("字节",),
    "cd": ("candela",),
    "lm": ("lumen",),
    "lux": ("lx",),
    "Bq": ("becquerel",),
    "Wb": ("weber",),
    "amu": ("atomic mass unit",),
    "eV": ("electronvolt", "electron volt"),
    "dB": ("decibel", "分贝"),
    "°C": ("celsius", "摄氏度"),
    "°F": ("fahrenheit", "华氏度"),
    "mol": ("mole", "摩尔", "моль"),
    "rad": ("radian", "弧度"),
    "rev": ("revolution",),
    "beat": (),
    "px": ("pixel",),
    "°": ("degree", "deg", "度", "градус", "градуса", "градусов", "도"),
    "%": ("percent", "pct", "percentage"),
    "$": ("dollar", "usd", "us dollar", "美元"),
    "cent": ("¢",),
    "€": ("euro", "eur", "欧元"),
    "£": ("gbp", "pound sterling", "pounds sterling", "british pound", "英镑"),
    "元": ("yuan", "rmb", "cny", "renminbi", "¥", "人民币"),
    "rouble": ("ruble", "₽", "rub", "руб", "рубль", "рубля", "рублей"),
    "rupee": ("₹", "inr"),
    "yen": ("円", "jpy", "日元"),
    "won": ("₩", "krw", "원"),
    "franc": ("chf",),
    "cad": ("canadian dollar",),
    "aud": ("australian dollar",),
    "hkd": ("港元",),
    "sgd": (),
    "nzd": (),
    "角": (),
    "分": (),
}
# Single letters in the case that makes them units; in the other case they are options, points or variables.
_SINGLE = {
    "m": "m", "g": "g", "s": "s", "h": "h", "t": "t", "l": "L", "L": "L", "N": "N", "J": "J", "W": "W", "V": "V",
    "A": "A", "C": "C", "F": "F", "T": "T", "K": "K", "u": "unit",
}  # fmt: skip
# Units that take a prefix. A prefixed unit is a symbol of its own: mN is not a product, N m is.
_PREFIXES = {"n": "nano", "μ": "micro", "m": "milli", "k": "kilo", "M": "mega", "G": "giga"}
_PREFIXED = {
    "N": "newton", "J": "joule", "W": "watt", "V": "volt", "A": "ampere", "C": "coulomb", "F": "farad", "T": "tesla",
    "H": "henry", "Ω": "ohm", "Hz": "hertz", "Pa": "pascal", "eV": "electronvolt", "mol": "mole", "s": "second",
    "g": "gram", "L": "liter",
}  # fmt: skip
# Symbols that may also be products of variables. They are units only after a number and a space, in exactly this case.
_LIKE_PRODUCTS = {
    "ha": "ha", "cL": "cL", "cl": "cL", "dL": "dL", "dl": "dL", "pt": "pt", "qt": "qt", "kn": "knot", "kt": "knot",
    "kts": "knot", "hp": "hp", "ly": "ly", "cd": "cd", "lm": "lm", "lx": "lux", "Bq": "Bq", "Wb": "Wb", "pF": "pF",
    "fm": "fm", "kB": "kB", "KB": "kB", "MB": "MB", "GB": "GB", "TB": "TB", "Mb": "Mb", "Gb": "Gb", "TW": "TW",
    "TJ": "TJ", "Rs": "rupee", "gm": "g", "gms": "g",
}  # fmt: skip

UNITS: dict[str, str] = {}
for _symbol, _others in _SPELLINGS.items():
    if _symbol not in _LIKE_PRODUCTS:
        UNITS[_symbol] = _symbol
    if len(_symbol) > 2 and _symbol.isascii() and _symbol.islower():
        UNITS[f"{_symbol}s"] = _symbol
    for _other in _others:
        UNITS[_other] = _symbol
        if _other.isascii() and len(_other) > 2:
            UNITS[f"{_other}s"] = _symbol
for _prefix, _long in _PREFIXES.items():
    for _symbol, _name in _PREFIXED.items():
        # Megaseconds and megagrams are not in use, and MT and MC are segments and products.
        if not (_prefix in "MG" and _symbol in "sgCTALFH"):
            for _spelled in (_prefix, "u") if _prefix == "μ" else (_prefix,):
                UNITS.setdefault(_spelled + _symbol, _prefix + _symbol)
            for _word in (_long + _name, _long + _name.replace("liter", "litre")):
                UNITS.setdefault(_word, _prefix + _symbol)
                UNITS.setdefault(_word if _word.endswith("hertz") else f"{_word}s", _prefix + _symbol)
for _symbol, _name in (
    ("kB", "kilobyte"), ("MB", "megabyte"), ("GB", "gigabyte"), ("TB", "terabyte"), ("Mb", "megabit"),
    ("Gb", "gigabit"),
    ("pF", "picofarad"), ("fm", "femtometer"), ("TW", "terawatt"), ("TJ", "terajoule"),
):  # fmt: skip
    UNITS[_name] = UNITS[f"{_name}s"] = _symbol
for _word in ("cm", "mm", "km"):
    UNITS[f"{_word}s"] = _word
# Molarity. M after a number is a factor or a million; `spellings` finds out where it is molarity.
UNITS["molar"] = "M"
_CASE_MATTERS = frozenset(f"m{symbol.lower()}" for symbol in _PREFIXED if symbol not in ("L", "Hz", "s"))
CHINESE_UNITS = sorted((unit for unit in UNITS if not unit.isascii() and unit.isalpha()), key=len, reverse=True)
# "5 square cm" and "5 cm squared".
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "平方": 2, "立方": 3, "кв": 2, "куб": 3}
POWERS_BEHIND = {"squared": 2, "cubed": 3}
# The unit of 5th, with which it equals a bare 5 but neither 5 s nor 5 m. IN_ORDER matches what an ordinal counts.
ORDINAL = "th"
IN_ORDER = (
    r"(?:term|place|position|row|column|day|floor|person|figure|pattern|step|one|graph|diagram|picture|image|line|table"
    r"|box)"
)
# Quotients and products of units in one word. Only a preceding number distinguishes the product Nm from a segment.
QUOTIENTS = {
    "kmphr": ("km", "h"), "rpm": ("rev", "min"), "rps": ("rev", "s"), "mps": ("m", "s"), "mph": ("mi", "h"),
    "mpg": ("mi", "gallon"), "kph": ("km", "h"), "kmh": ("km", "h"), "kmph": ("km", "h"),
    "mbps": ("Mb", "s"), "bpm": ("beat", "min"),
}  # fmt: skip
PRODUCTS = {
    "Nm": ("N", "m"), "kNm": ("kN", "m"), "Ns": ("N", "s"), "Wh": ("W", "h"), "kWh": ("kW", "h"), "kwh": ("kW", "h"),
    "KWh": ("kW", "h"), "Ah": ("A", "h"), "mAh": ("mA", "h"),
}  # fmt: skip


def unit_of(word: str) -> str | None:
    """Return the symbol of a unit in any spelling, None for other words. Case matters for single letters."""
    if len(word) == 1 and word.isascii() and word.isalpha():
        return _SINGLE.get(word)
    # MN is not mN, and mM is not mm, but CM and Min mean the same in lower case.
    symbol = UNITS.get(word) or _LIKE_PRODUCTS.get(word)
    is_fixed = not word[:1].isupper() or word.lower() in _CASE_MATTERS
    return symbol or (None if is_fixed else UNITS.get(word.lower()))


def is_like_a_product(word: str) -> bool:
    """Whether a symbol of a unit, such as ha or MB, may also be a product of variables."""
    return word in _LIKE_PRODUCTS
