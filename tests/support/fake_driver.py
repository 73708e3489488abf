"""NVIDIA GPUs where there are none: a small library in the driver's place, asked by the real nvidia-ml-py."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "fake_nvml.c"
NOT_SUPPORTED, DRIVER_NOT_LOADED, GPU_IS_LOST = 3, 9, 15


class FakeDriver:
    """A driver that says what it is told to. Processes with `env` find it."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state"
        self.env = {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML": str(self._state)}
        self._library = folder / "libnvidia-ml.so.1"
        self._compile(SOURCE)
        self.says()

    def _compile(self, source: Path) -> None:
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(self._library), str(source)], check=True)

    def knows_nothing(self) -> None:
        """For processes to come: a library without any of the functions."""
        source = self._library.with_name("nothing.c")
        source.write_text("int nothing;\n")
        self._compile(source)

    def says(self, **numbers: int) -> None:
        """From now on: `count=2`, `hang=1`, and of GPU 0 `util_0=97` or `util_fails_0=3`; see fake_nvml.c."""
        lines = []
        for name, number in numbers.items():
            *words, last = name.split("_")
            key = f"{last}.{'_'.join(words)}" if last.isdigit() else name
            lines.append(f"{key.replace('_fails', '.fails')} {number}\n")
        written = self._state.with_suffix(".new")
        written.write_text("".join(lines))
        written.replace(self._state)
