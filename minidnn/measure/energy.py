"""Joules that the CPU took, where the system counts them: RAPL through Linux's power capping.

The counters are those of whole CPU packages: what other programs and the idle parts took is in
them. Virtual machines rarely have them, and most systems show them to root alone; then the reason
is given instead of a number.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("/sys/class/powercap")


class Meter:
    """Reads the counters of all CPU packages.

    Parameters
    ----------
    folder : Path
        Where Linux keeps them.

    Attributes
    ----------
    missing : str or None
        Why there are none.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._domains: list[tuple[Path, int]] = []  # counter, and where it begins again
        self.missing: str | None = None
        try:
            self._domains = [_domain(path) for path in _packages(folder)]
            if self._domains:
                self.read()
            else:
                self.missing = f"no counter of a CPU package in {folder}"
        except PermissionError as error:
            self.missing = f"{error.filename} may not be read by this user"
        except (OSError, ValueError) as error:
            self.missing = f"{folder}: {error}"

    def read(self) -> list[int]:
        """Return what the counters say, in millionths of a joule; nothing if there are none."""
        if self.missing is not None:
            return []
        return [_number(counter) for counter, _ in self._domains]

    def joules_since(self, before: list[int]) -> float | None:
        """Return what was taken since a `read`, None if nothing counts.

        A counter may have begun again in between, once.
        """
        if self.missing is not None:
            return None
        taken = 0
        for start, end, (_, size) in zip(before, self.read(), self._domains, strict=True):
            taken += (end - start) % size
        return taken / 1e6


def _packages(folder: Path) -> list[Path]:
    """Return the folders of CPU packages; they contain those of cores, and psys contains them."""
    if not folder.is_dir():
        raise FileNotFoundError("no such folder: this system, or this virtual machine, has none")
    found = sorted(folder.glob("intel-rapl:*"))  # also on AMD's CPUs
    return [path for path in found if _text(path / "name").startswith("package")]


def _domain(path: Path) -> tuple[Path, int]:
    return path / "energy_uj", _number(path / "max_energy_range_uj") + 1


def _number(path: Path) -> int:
    return int(_text(path))


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii")
