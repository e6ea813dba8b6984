"""The words of `jaxsec train` as a recipe and an augmentation."""

from typing import Any

from ._train_asked import Asked
from ._values import part, whole


def recipe_of(asked: Asked, rows: Any) -> tuple[Any, Any]:
    """(the recipe, its threat or None)."""
    from ..audit._scale import too_large
    from ..train import Curriculum, recipe_named, takes
    from ..train._catalogue import parts_of
    from ._inputs import DEFAULT_EPS, DIGITS_EPS, model_of, threat_of, warn
    from ._trained import of_run

    settings = {}
    for word in asked.settings:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--set is {word!r}; a setting and its value are needed, such as --set beta=3.")
        if name.strip() in settings:
            raise ValueError(f"--set gives {name.strip()} twice, {settings[name.strip()]} and {value.strip()}; give it once.")
        settings[name.strip()] = value.strip()
    name, teacher = str(asked.recipe), None
    parts = parts_of(name)
    if takes(name, "teacher") and asked.teacher is None:
        raise ValueError(f"--teacher is missing; the recipe {name} learns from another model's answers, such as --teacher teacher.onnx.")
    if asked.teacher is not None:
        from ._inputs import Source

        teacher = model_of(str(of_run(asked.teacher, Source(data=""))[0]), name="--teacher")
    ball = None
    if takes(name, "threat"):
        norm = "l2" if "lipschitz" in parts else "linf"
        said: list[str] = []  # what it warns of is what an eps is refused for
        ball = threat_of(
            norm if asked.threat is None else asked.threat,
            asked.eps,
            rows,
            DIGITS_EPS if rows.source == "digits" else DEFAULT_EPS,
            warn=said.append,
        )
        if too_large(ball.scaled(0.5), rows.x.shape[1:]):  # any input can be turned into any other
            raise ValueError(
                f"--eps {too_large(ball, rows.x.shape[1:]).removeprefix('eps ')} Give it in the units of the data, such as 0.03 or 8/255 "
                "for data in [0, 1], or say the range with --range LO,HI."
            )
        for text in said:
            warn(text)
    elif asked.threat is not None or asked.eps is not None:
        given = "--threat" if asked.threat is not None else "--eps"
        raise ValueError(f"{given} was given, and the recipe {name} has no threat; leave it out, or choose another recipe.")
    if teacher is not None and not takes(name, "teacher"):
        raise ValueError(f"--teacher was given, and the recipe {name} has none; leave it out, or choose ard or rslad.")
    recipe = recipe_named(name, threat=ball, teacher=teacher, settings=settings)
    warm = part(asked.warm_up, "--warm-up", 0.3)
    scheduled = ball is not None and recipe.grows and not takes(name, "shape")
    if asked.warm_up is not None and not scheduled:
        raise ValueError(f"--warm-up was given, and the recipe {name} has no eps that grows with it; leave it out, or see --list.")
    if scheduled and warm:
        recipe = Curriculum(recipe=recipe, end=warm)
    return recipe, ball


def augment_of(asked: Asked, layout: str, row: tuple[int, ...]) -> Any:
    """What --shift and --flip ask for, None without either."""
    from ..train import Chain, Flip, Shift

    pixels = whole(asked.shift, "--shift", 0) or 0
    if (pixels or asked.flip) and layout not in ("NCHW", "NHWC"):
        raise ValueError(
            f"{'--shift' if pixels else '--flip'} needs images, and the rows are {layout or 'of unknown layout'}; say --layout."
        )
    sides = row[1:] if layout == "NCHW" else row[:2]
    if pixels and pixels >= min(sides):
        raise ValueError(f"--shift is {pixels}, which moves images of {sides[0]}x{sides[1]} out of sight; give at most {min(sides) - 1}.")
    parts = [Shift(pixels, layout)] if pixels else []
    parts += [Flip(layout)] if asked.flip else []
    return Chain(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None
