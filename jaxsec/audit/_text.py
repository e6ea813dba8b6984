"""Numbers and tables as words, the same in every view of a report."""

from typing import Any

from ._examples import FEATURES

NOISE = "Accuracy at one random point per row"
CLASSES_SAID = "Under attack: all attacks count, so a row is right if none of them broke it at the audited eps."


def rows_said(data: dict[str, Any]) -> str:
    """Which rows were audited, of how many: `1000 rows drawn at random from the first 2000 of 10000`."""
    facts = data["data"]
    audited, rows, available = facts["audited"], facts["rows"], facts.get("available", facts["rows"])
    source = f"{rows} rows" if rows == available else f"the first {rows} of {available} rows"
    return (f"all {source}" if rows == available else source) if audited == rows else f"{audited} rows drawn at random from {source}"


def limited_said(data: dict[str, Any]) -> str:
    """What a limit means for the intervals; "" without one."""
    rows, available = data["data"]["rows"], data["data"].get("available", 0)
    text = f"a limit left the first {rows} of {available} rows; the intervals hold for all where the order of the file means nothing."
    return text if available > rows else ""


def percent(share: dict[str, Any]) -> str:
    """`62.0 % [58.1, 65.8]`, the interval in brackets."""
    if share["value"] is None:
        return "no rows"
    low, high = share["interval"]
    return f"{100 * share['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def valued(finding: dict[str, Any]) -> tuple[str, str]:
    """A finding's value and its interval, "" where it has none: a share as a percentage, else a number and what it counts."""
    value, unit = finding["value"], finding["unit"]
    if value is None:
        return "–", ""
    if unit != "share":
        return f"{value:.4g} {unit}".strip(), ""
    interval = "[{:.1f}, {:.1f}]".format(*(100 * end for end in finding["interval"])) if finding["interval"] else ""
    return f"{100 * value:.1f} %", interval


def resumed_said(data: dict[str, Any]) -> str:
    """`, resumed once` where a killed audit went on; "" where one process did it all."""
    times = data.get("resumed", 0)
    return f", resumed {'once' if times == 1 else f'{times} times'}" if times else ""


def seed_said(data: dict[str, Any]) -> str:
    """`Seed 0.`, or the key where no seed was told."""
    seed = data["context"].get("seed")
    return f"Seed {seed}." if seed is not None else f"Key {data['key']['impl']} {data['key']['data']}."


def answers_said(data: dict[str, Any]) -> str:
    """Whose inputs the answers under attack are of, and how many rows fell to other attacks alone."""
    probes = data["probes"]
    counts = probes["confusion"]["attacked"]
    right = sum(counts[k][k] for k in range(len(counts)))
    more = right - probes["worst_case"]["robust"]["count"]
    text = "Answers to AutoAttack's inputs alone; those of the other attacks are not kept."
    return text if more <= 0 else f"{text} {more} of the {right} rows that it left right fell to another attack."


def noise_said(noise: dict[str, Any]) -> str:
    """What the noise control counts, and the number for all draws."""
    text = "a control without an adversary; a row counts if it is right as it is and at one point drawn uniformly from the ball of eps "
    text += "around it, moved into the valid range."
    return text if noise["draws"] == 1 else f"{text} Right at all of {noise['draws']} such points: {percent(noise['all_draws'])}."


def sweep_table(data: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows of robust accuracy against the budget."""
    points, eps = data["probes"]["sweep"]["points"], data["threat"]["eps"]
    level = f"{100 * points[0]['robust']['confidence']:g} %"
    columns = (f"eps ({data['threat']['norm']}, input units)", f"robust accuracy [{level} interval]", "by PGD at this eps only", "rows")
    rows = tuple(
        (f"{p['eps']:.6g}{' (audited)' if p['eps'] == eps else ''}", percent(p["robust"]), percent(p["alone"]), str(p["robust"]["n"]))
        for p in points
    )
    return columns, rows


def sweep_said(data: dict[str, Any]) -> str:
    """One sentence on what the curve counts, and the number of all attacks beside it."""
    plan, eps = data["plan"], data["threat"]["eps"]
    text = f"PGD ({runs_of(plan)} per row) at each budget; a row that fell to a smaller budget counts as fallen at larger ones."
    if worst := data["probes"].get("worst_case"):
        text += f" All attacks together, at the audited eps {eps:.6g}: {percent(worst['robust'])}."
    return text


def runs_of(plan: dict[str, Any]) -> str:
    """`1 run of 40 steps`: the effort at each budget of the curve."""
    return f"{plan['sweep_restarts']} run{'s' if plan['sweep_restarts'] != 1 else ''} of {plan['sweep_steps']} steps"


def examples_said(data: dict[str, Any]) -> str:
    """How the inputs shown as worst were chosen."""
    shown = data["examples"]
    text = f"The first {len(shown)} of the rows that were right as they are and fell to AutoAttack at eps, "
    if shown[0]["clean"]["kind"] == "vector" and (n := shown[0]["clean"]["shape"][0]) > FEATURES:
        text = f"Of {n} features the {FEATURES} that changed most (of equal changes the first). {text}"
    if "distance" in data["probes"]:
        return text + (
            "in order of the distance to the nearest adversarial input that FAB found, nearest first. Shown is AutoAttack's input, which "
            "uses the budget and so may lie farther away."
        )
    return text + "in order of the model's confidence in the wrong answer, highest first."
