"""Plans: presets, the TOML file, and errors that name what is allowed."""

import pathlib

import pytest

from jaxsec.audit import Plan, read_plan
from jaxsec.audit._plan import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_usable(name: str) -> None:
    plan = Plan.preset_of(name)
    plan.check()
    assert plan.preset == name
    assert plan.reduced == (name == "quick"), "only quick may be weaker than the published AutoAttack"


def test_a_file_changes_single_settings_and_gives_those_of_the_run(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('preset = "quick"\nrows = 7\nsweep = [0, 1]\nfail_under = 0.25\nthreat = "l2"\neps = "1/4"\nseed = 3\n')
    plan, run = read_plan(file)
    assert (plan.rows, plan.sweep, plan.fail_under, plan.attack_steps) == (7, (0, 1), 0.25, 20)
    assert run == {"threat": "l2", "eps": "1/4", "seed": 3}
    assert read_plan(file, preset="full")[0].attack == "plus", "the caller's preset comes before the file's"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("row = 5", "unknown key 'row' (did you mean 'rows'?)"),
        ("rows = -1", "rows is -1"),
        ("rows = true", "rows is True"),
        ("attack_steps = 0", "attack_steps is 0"),
        ("sweep = [1, 0]", "must rise"),
        ("sweep = []", "needed: a list"),
        ('probes = ["clen"]', "allowed is a list of clean"),
        ("confidence = 2.0", "confidence is 2.0"),
        ('fail_under = "high"', "fail_under is 'high'"),
        ('preset = "slow"', "allowed: quick, standard, full"),
        ('attack = "custom"', "allowed: standard, plus, rand"),
        ('certify = "ibp,crown"', """certify is 'ibp,crown'; a list is needed: ["ibp", "crown"], ["auto"], or [] for no certificates."""),
        (
            'certify = ["ibp", "magic"]',
            "certify is ['ibp', 'magic']; 'magic' is no method; allowed: ibp, crown-ibp, forward, crown, alpha-crown, beta-crown",
        ),
        ('certify = ["auto", "ibp"]', "'auto' is no method"),
        ('certify = ["ibp", "ibp"]', "it has ibp twice"),
        ("certify_sound = 1", "certify_sound is 1; true or false is needed"),
        ('layout = "NCHW"', "allowed: auto, chw, hwc, hw"),
        ("rows = = 3", "no readable TOML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: pathlib.Path, text: str, words: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text + "\n")
    with pytest.raises(ValueError) as caught:
        read_plan(file)
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="plan file"):
        read_plan(tmp_path / "none.toml")
