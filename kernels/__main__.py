"""``python -m minidnn.kernels``: every op, its rungs, the one chosen here and why."""

from __future__ import annotations

import inspect

from .ladder import TABLE, load_all


def main() -> None:
    """Print one block per ladder."""
    for name, ladder in sorted(load_all().items()):
        print(name)
        for rung, function in ladder.rungs.items():
            idea = (inspect.getdoc(function) or "").partition("\n")[0]
            mark = "*" if rung == ladder.fastest else " "
            print(f"  {mark} {rung:<12} {idea}")
        for rule in TABLE.get(name, ()):
            print(f"    -> {rule.rung}: {rule.why}")
    print("\n* runs unless a rule (->) picks another rung for the shape at hand")


if __name__ == "__main__":
    main()
