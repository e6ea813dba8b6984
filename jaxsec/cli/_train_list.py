"""What `jaxsec train --list` prints."""

from typing import Any


def show_list() -> None:
    """A line for each recipe and for what goes around one, and its settings below."""
    import dataclasses

    from rich.console import Console

    from ..train import RECIPES, WRAPPERS, settings_of

    console = Console(highlight=False)
    width = max(map(len, [*RECIPES, *WRAPPERS])) + 2

    def shown(name: str, value: Any) -> str:
        return f"{name}=?" if value is dataclasses.MISSING else f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, soft_wrap=True, markup=False)

    for title, entries in (("Recipes", RECIPES), ("Around a recipe, after a +", WRAPPERS)):
        line(f"{title}: what it does; backward passes an update; source", "bold")
        for name, cls in entries.items():
            line(f"{name:{width}}{cls.summary}; {cls.cost}; {cls.source}")
            if settings := " ".join(shown(*pair) for pair in settings_of(name).items()):
                line(" " * width + settings, "dim")
        line("")
    line("From Python alone: MultiNorm, a recipe against several threats at once (jaxsec.train.MultiNorm.over)", "dim")
    line("Settings are given by --set, those with ? must be: --recipe trades+awp --set beta=3 --set awp.gamma=0.01")
