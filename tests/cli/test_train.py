"""`jaxsec train`: from data to a folder that the other commands take, killed or not, and what it says of mistakes."""

import json
import re
import shutil

import numpy as np
import pytest

import jaxsec
from jaxsec.cli import main
from jaxsec.cli._inputs import Source
from jaxsec.cli._train_rows import prepared
from jaxsec.cli._train_show import shortcomings
from jaxsec.train._checkpoint import Checkpoints
from jaxsec.train._log import Log

pytest.importorskip("onnx")
SHORT = ["--epochs", "3", "--batch-size", "16", "--quiet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of three kinds, bright in different rows."""
    folder = tmp_path_factory.mktemp("train")
    r = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = 0.2 + 0.1 * r.uniform(size=(120, 8, 8, 1))
    for k in range(3):
        x[y == k, 2 * k : 2 * k + 3] += 0.6
    np.savez(folder / "data.npz", x=x.astype(np.float32), y=y)
    return folder / "data.npz"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    args = ["--recipe", "trades", "--data", str(data), "--threat", "linf", "--eps", "0.05", "--set", "steps=2", "--shift", "1"]
    assert main(["train", *args, *SHORT, "--out", str(out)]) == 0
    return out


def test_it_leaves_what_it_says(trained):
    about = json.loads((trained / "train.json").read_text())
    assert about["recipe"] == "trades" and about["eps"] == 0.05 and about["data"] == about["data"] | {"rows": 120, "held out": 24}
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 3
    with np.load(trained / "test.npz") as held:
        assert held["x"].shape == (24, 8, 8, 1)


def test_audit_and_attack_take_the_folder(trained, tmp_path, capsys):
    assert main(["audit", str(trained), "--preset", "quick", "--certify", "none", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "linf eps 0.05" in said and "24 rows" in said
    model = json.loads((tmp_path / "report.json").read_text())["model"]
    assert model["name"] == trained.name
    assert any("trades with steps=2 against linf eps 0.05, 3 epochs, seed 0, 96 rows of" in note for note in model["notes"]), model["notes"]
    assert main(["attack", str(trained), "--method", "fgsm", "--eps", "0.01", "--out", str(tmp_path / "adv.npz")]) == 0
    with np.load(tmp_path / "adv.npz") as found:
        assert found["x"].shape == (24, 8, 8, 1)


def test_every_command_asks_about_what_a_run_was_trained_for(trained, tmp_path, capsys):
    found = tmp_path / "found.npz"

    def threat(*args):
        assert main([*args, "--quiet", "--out", str(found)]) == 0
        with np.load(found) as held:
            return json.loads(str(held["about"]))["threat"]

    run = str(trained)
    asked = threat("attack", run, "--method", "fgsm"), threat("certify", run, "--method", "ibp")
    for ball in (*asked, threat("attack", run, "--method", "fgsm", "--threat", "LINF")):
        assert ball["norm"] == "linf" and np.ravel(ball["eps"]) == pytest.approx([0.05]), ball
    assert np.ravel(threat("attack", run, "--method", "fgsm", "--eps", "0.01")["eps"]) == pytest.approx([0.01])
    assert np.ravel(threat("attack", run, "--method", "fgsm", "--threat", "l2")["eps"]) == pytest.approx([0.5])  # another norm's own
    assert "trained on data in" not in capsys.readouterr().err
    with np.load(trained / "test.npz") as held:
        np.savez(tmp_path / "bytes.npz", x=255 * held["x"], y=held["y"])
    threat("attack", run, "--method", "fgsm", "--data", str(tmp_path / "bytes.npz"), "--range", "0,255")
    assert "eps is 0.05, for which the model was trained on data in [0, 1], and these are in [0, 255]" in capsys.readouterr().err
    assert main(["attack", run, "--method", "fgsm", "--threat", "", "--out", str(found)]) == 2


def test_a_finished_run_is_not_done_again_and_another_is_refused(trained, data, capsys):
    before = (trained / "model.onnx").read_bytes()
    args = ["--recipe", "trades", "--data", str(data), "--set", "steps=2", "--shift", "1", *SHORT, "--out", str(trained)]
    assert main(["train", *args, "--eps", "0.05"]) == 0
    assert (trained / "model.onnx").read_bytes() == before
    assert main(["train", *(a for a in args if a != "--quiet"), "--eps", "0.1"]) == 2
    said = capsys.readouterr()
    assert "--eps: 0.05 there, 0.1 now" in said.err and "--fresh" in said.err and "going on" not in said.out
    for changed in (["--learning-rate", "0.5"], ["--net", "mlp"], ["--seed", "3"]):
        assert main(["train", *args, "--eps", "0.05", *changed]) == 2
    assert not (trained / "initial.onnx").exists()
    assert (trained / "model.onnx").read_bytes() == before and json.loads((trained / "train.json").read_text())["eps"] == 0.05


def test_an_onnx_model_is_trained_further(trained, data, tmp_path):
    args = ["train", "--recipe", "fast-at", "--eps", "0.05", "--data", str(data), "--net", str(trained / "model.onnx"), *SHORT]
    assert main([*args, "--out", str(tmp_path), "--hold-out", "0", "--validation", "0", "--average", "0"]) == 0
    assert (tmp_path / "model.onnx").read_bytes() != (trained / "model.onnx").read_bytes()
    assert not (tmp_path / "test.npz").exists()
    assert main(["audit", str(tmp_path), "--out", str(tmp_path / "report")]) == 2


def test_a_wrapper_follows_its_recipe(data, tmp_path):
    args = ["train", "--recipe", "pgd-at+awp+l2", "--eps", "0.05", "--data", str(data), "--net", "mlp", *SHORT, "--epochs", "1"]
    assert main([*args, "--set", "steps=1", "--set", "weight=0.001", "--set", "awp.gamma=0.01", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "train.json").read_text())["recipe"] == "pgd-at+awp+l2"


def test_list_names_every_recipe(capsys):
    from jaxsec.train import RECIPES, WRAPPERS

    assert main(["train", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in [*RECIPES, *WRAPPERS]) and "arXiv:1901.08573" in said and "beta=6 steps=10" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "--recipe is missing"),
        (["--recipe", "magic"], "allowed: "),
        (["--recipe", "trade"], "did you mean trades?"),
        (["--recipe", "tradez", "--threat", "linf", "--eps", "0.1"], "did you mean trades?"),
        (["--recipe", "standard", "--shift", "8"], "--shift is 8, which moves images of 8x8 out of sight; give at most 7"),
        (["--recipe", "awp+trades"], "as in trades+awp; allowed"),
        (["--recipe", "trades", "--weight-decay", "-1"], "--weight-decay is '-1'"),
        (["--recipe", "trades", "--eps", "x"], "--eps is 'x'"),
        (["--recipe", "trades", "--eps", "-1"], "--eps is '-1'"),
        (["--recipe", "trades", "--set", "beta"], "--set is 'beta'"),
        (["--recipe", "trades", "--set", "gamma=1"], "no setting 'gamma'"),
        (["--recipe", "standard", "--eps", "0.1"], "has no threat"),
        (["--recipe", "trades", "--net", "vgg"], "--net is 'vgg'"),
        (["--recipe", "trades", "--epochs", "0"], "--epochs is '0'"),
        (["--recipe", "trades", "--learning-rate", "0"], "--learning-rate is '0'"),
        (["--recipe", "trades", "--hold-out", "1"], "--hold-out is '1'"),
        (["--recipe", "trades", "--hold-out", "0.999"], "--hold-out leaves"),
        (["--recipe", "trades", "--teacher", "nothing.onnx"], "nothing.onnx"),
        (["--recipe", "ard"], "--teacher is missing"),
        (["--recipe", "gaussian"], "needs a value for sigma"),
        (["--recipe", "trades", "--set", "beta=1", "--set", "beta=2"], "gives beta twice"),
        (["--recipe", "trades", "--set", "beta=-3"], "beta=-3"),
        (["--recipe", "trades", "--set", "beta=nan"], "beta='nan'"),
        (["--recipe", "standard", "--warm-up", "0.5"], "--warm-up was given"),
        (["--recipe", "trades", "--patience", "1", "--validation", "0"], "--patience is 1"),
        (["--recipe", "trades", "--limit", "5"], "--validation is a share of 0.1 of 4 rows"),
        (["--recipe", "lipschitz"], "normalise=true"),
    ],
)
def test_mistakes_end_in_one_line(args, said, data, tmp_path, capsys):
    assert main(["train", "--data", str(data), "--out", str(tmp_path), *args]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and err.count("\n") == 0


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda y: 0 * y, "rows of class 0 only"),
        (lambda y: np.where(np.arange(len(y)) == 7, 4_000_000, y), "label 4000000 in row 7, which makes 4000001 classes"),
    ],
)
def test_labels_that_are_no_classes(labels, said, data, tmp_path, capsys):
    found = np.load(data)
    np.savez(tmp_path / "odd.npz", x=found["x"], y=labels(found["y"]))
    assert main(["train", "--recipe", "standard", "--data", str(tmp_path / "odd.npz"), "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["model.onnx", "test.npz", "train.json", "metrics.jsonl"])
def test_files_of_the_user_are_not_written_over(name, data, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"mine")
    assert main(["train", "--recipe", "standard", "--data", str(data), *SHORT, "--out", str(tmp_path)]) == 2
    assert f"holds {name} and no run" in capsys.readouterr().err and (tmp_path / name).read_bytes() == b"mine"


def test_a_run_does_not_write_over_what_it_reads(trained, data, capsys):
    before = (trained / "test.npz").read_bytes()
    for option, name in (("--data", "test.npz"), ("--net", "model.onnx")):
        args = {"--data": str(data)} | {option: str(trained / name)}
        words = [word for pair in args.items() for word in pair]
        assert main(["train", "--recipe", "standard", *words, *SHORT, "--out", str(trained), "--fresh"]) == 2
        assert f"{option} is {trained / name}, which training would write over" in capsys.readouterr().err
    assert (trained / "test.npz").read_bytes() == before


def test_two_processes_do_not_train_in_one_folder(trained, data, capsys):
    from filelock import FileLock

    with FileLock(trained / ".lock"):
        assert main(["train", "--recipe", "pgd-at", "--data", str(data), *SHORT, "--eps", "0.05", "--out", str(trained)]) == 2
    assert "is in use by another run" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_in_a_line(data, tmp_path, capsys):
    args = ["--recipe", "standard", "--learning-rate", "1e30", "--net", "mlp"]
    assert main(["train", *args, "--data", str(data), *SHORT, "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "jaxsec: warning: a step was not finite" in err and "smaller learning rate" in err and "Traceback" not in err
    assert main(["audit", str(tmp_path)]) == 2
    assert "not finished" in capsys.readouterr().err


def test_a_fresh_run_that_is_refused_leaves_what_was_asked(trained, data, capsys):
    before = (trained / "asked.json").read_text()
    args = ["--recipe", "trades", "--data", str(data), "--eps", "0.05", "--set", "beta=-1", *SHORT, "--out", str(trained)]
    assert main(["train", *args, "--fresh"]) == 2
    assert "beta" in capsys.readouterr().err and (trained / "asked.json").read_text() == before


def test_an_eps_that_leaves_nothing_of_an_input_is_refused(data, tmp_path, capsys):
    for threat, eps in (("linf", "8"), ("l2", "9")):
        assert (
            main(["train", "--recipe", "trades", "--data", str(data), "--threat", threat, "--eps", eps, "--out", str(tmp_path / "run")])
            == 2
        )
        err = capsys.readouterr().err
        assert "every input can be turned into the same one" in err and "warning" not in err and not (tmp_path / "run").exists()


def test_a_net_that_learned_nothing_is_told(data, tmp_path, capsys):
    found = np.load(data)
    np.savez(tmp_path / "same.npz", x=np.full_like(found["x"], 0.5), y=found["y"])
    args = [
        "--recipe",
        "standard",
        "--net",
        "mlp",
        "--epochs",
        "4",
        "--average",
        "0",
        "--validation",
        "0.3",
        "--quiet",
        "--range",
        "0,1",
    ]
    assert main(["train", *args, "--batch-size", "4000", "--data", str(tmp_path / "same.npz"), "--out", str(tmp_path / "dull")]) == 0
    err = capsys.readouterr().err
    assert "it learned nothing" in err and re.search("--batch-size 4000 is more than the [0-9]+ rows that are trained on", err)
    assert main(["train", *args, "--batch-size", "8", "--data", str(data), "--out", str(tmp_path / "keen")]) == 0
    assert "it learned nothing" not in capsys.readouterr().err
    (tmp_path / "dull" / "model.onnx").unlink()
    assert main(["audit", str(tmp_path / "dull")]) == 2
    assert "train.json of a run and no model.onnx" in capsys.readouterr().err


def test_a_run_that_was_begun_anew_over_another_is_not_the_other(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    asked = json.loads((folder / "asked.json").read_text())
    (folder / "asked.json").write_text(json.dumps(asked | {"--seed": "7"}))
    assert main(["audit", str(folder), "--out", str(tmp_path / "report")]) == 2
    assert "not finished" in capsys.readouterr().err
    (folder / "asked.json").write_text("[]")  # nothing is known then
    assert main(["train", "--recipe", "trades", "--data", str(trained / "test.npz"), "--eps", "0.05", "--out", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "is not known here" in err and "--fresh" in err and "internal" not in err
    (folder / "train.json").write_text("[]")
    assert main(["audit", str(folder)]) == 2
    assert "train.json is damaged" in capsys.readouterr().err


def test_other_data_under_the_same_words_are_told(data, tmp_path, capsys):
    shutil.copy(data, tmp_path / "data.npz")
    args = ["train", "--recipe", "standard", "--net", "mlp", "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "run"), *SHORT]
    assert main(args) == 0
    found = np.load(data)
    np.savez(tmp_path / "data.npz", x=1 - found["x"], y=found["y"])
    assert main(args) == 2
    err = capsys.readouterr().err
    assert "holds a run that differs in data" in err and "jaxsec.fit" not in err and "--fresh" in err


def test_an_interrupt_leaves_a_folder_in_which_the_same_command_works(data, tmp_path, monkeypatch, capsys):
    args = ["train", "--recipe", "standard", "--net", "mlp", "--data", str(data), "--out", str(tmp_path / "run"), *SHORT]
    save, saved = Checkpoints.save, []

    def pressed(self, *given):
        if len(saved) == stop:
            raise KeyboardInterrupt
        saved.append(save(self, *given))

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", pressed)
        stop = 0  # after the first line of metrics.jsonl
        assert main(args) == 130
        assert "begins anew" in capsys.readouterr().err and not (tmp_path / "run").exists()
        stop = 2
        assert main(args) == 130
        assert "run the same command again to go on" in capsys.readouterr().err
    assert main(args) == 0
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", pressed)
        stop, saved[:] = 2, []
        assert main([*args, "--fresh"]) == 130
        assert "the same command without --fresh goes on" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "run")]) == 2  # model.onnx is that of the run before
    assert "not finished" in capsys.readouterr().err
    assert main(args) == 0 and len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_an_interrupt_before_anything_is_begun_anew_leaves_the_run_as_it_was(trained, data, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"}

    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxsec.train._adversarial.TRADES.check", pressed)
    args = ["train", "--recipe", "trades", "--data", str(data), "--eps", "0.05", "--set", "steps=2", *SHORT, "--out", str(folder)]
    assert main([*args, "--fresh", "--learning-rate", "0.01"]) == 130
    assert "is as it was" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"} == before


def test_a_model_of_another_run_is_not_told_as_this_one(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    assert main(["audit", str(folder)]) == 2
    assert "is not the model that train.json tells of" in capsys.readouterr().err
    (folder / "model.onnx").write_bytes(model)
    found = np.load(folder / "test.npz")
    np.savez(folder / "test.npz", x=found["x"], y=(found["y"] + 1) % 3)
    assert main(["audit", str(folder)]) == 2
    assert "holds other rows than train.json tells of" in capsys.readouterr().err
    (folder / "test.npz").unlink()
    assert main(["audit", str(folder)]) == 2
    assert f"{folder / 'test.npz'} is missing" in capsys.readouterr().err
    (folder / "train.json").write_text(json.dumps(json.loads((folder / "train.json").read_text()) | {"eps": "x", "eps typed": None}))
    assert main(["audit", str(folder)]) == 2
    assert "train.json is damaged" in capsys.readouterr().err


def test_a_run_whose_checkpoints_are_gone_is_not_replaced_by_another(trained, data, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"}
    args = ["train", "--recipe", "standard", "--data", str(data), *SHORT, "--out", str(folder)]
    assert main(args) == 2
    assert "whose checkpoints are gone (--recipe: trades there, standard now" in capsys.readouterr().err
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"}
    assert main([*args, "--fresh"]) == 0
    assert json.loads((folder / "train.json").read_text())["recipe"] == "standard"


def test_what_a_net_did_not_become_is_said():
    class Made:
        best_epoch = 0

        def __init__(self, **shares):
            self.history = [{f"validation_{name}": share for name, share in shares.items()}]

    labels, ball = np.arange(1000) % 10, jaxsec.LInf(eps=0.1)
    for shares, said in (
        ({"clean": 0.95, "robust": 0.5}, None),
        ({"clean": 0.86, "robust": 0.045}, "4.5% of the validation rows withstand .* fewer than the 10.0% .* a smaller --eps"),
        ({"clean": 0.12, "robust": 0.0}, "it learned nothing. .* a smaller --eps"),
        ({"clean": 0.95, "robust": 0.05, "certified": 0.0}, "none of the validation rows is certified"),
        ({"clean": 0.95, "robust": 0.9, "certified": 0.05}, None),
    ):
        found = shortcomings(Made(**shares), labels, 0.1, ball)
        assert len(found) == (said is not None) and (said is None or re.search(said, found[0])), shares
    (found,) = shortcomings(Made(clean=0.1), labels, 0.1, None)
    assert "--eps" not in found


def test_a_full_disk_is_told(data, tmp_path, monkeypatch, capsys):
    """As TensorStore reports it, and the system."""
    import orbax.checkpoint as ocp

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Failed writing: No space left on device [os_error_code='28']")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    assert main(["train", "--recipe", "standard", "--net", "mlp", "--data", str(data), *SHORT, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path / 'run' / 'checkpoints'}: No space left on device" in err and "make room" in err and "RESOURCE" not in err


def test_a_full_disk_below_the_log_names_the_log(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = Log(tmp_path, 1, 1, tensorboard=False, progress=False)
    for write in (log.begin, lambda rows: log.row(rows[0])):
        with pytest.raises(OSError, match=f"No space left.*{tmp_path}/metrics.jsonl"):
            write([{"epoch": 0, "step": 1}])


def test_folders_that_no_train_command_made(tmp_path, capsys):
    for made, said in (
        (None, "; name the folder of a run"),
        ("run", "without a run of"),
        ("run/checkpoints", "it was not 'jaxsec train'"),
    ):
        if made is not None:
            (tmp_path / made).mkdir()
        assert main(["audit", str(tmp_path / "run")]) == 2
        assert said in capsys.readouterr().err


def test_digits_are_images(tmp_path):
    rows, _, net = prepared(None, Source(data="digits"), 0, tmp_path)
    assert (rows.x.shape[1:], rows.layout, net) == ((1, 8, 8), "NCHW", "cnn")
    rows, _, net = prepared("mlp", Source(data="digits"), 0, tmp_path)
    assert (rows.x.shape[1:], net) == ((64,), "mlp")


def test_what_comes_next_and_what_failed_is_said(data, tmp_path, capsys):
    args = ["train", "--data", str(data), "--net", "mlp", "--epochs", "2"]
    assert main([*args, "--recipe", "gaussian", "--set", "sigma=0.25", "--out", str(tmp_path / "noise")]) == 0
    assert f"next: jaxsec audit {tmp_path / 'noise'} --threat l2 --eps 0.5 --smooth-sigma 0.25" in capsys.readouterr().out
    assert main([*args, "--recipe", "ibp", "--eps", "0.4", "--out", str(tmp_path / "bounds")]) == 0
    said = capsys.readouterr()
    assert "none of the validation rows is certified" in said.err
    assert main([*args, "--recipe", "ibp", "--eps", "0.4", "--out", str(tmp_path / "bounds")]) == 0
    assert "finished before, nothing to train: 2 epochs done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("theirs", "model"), [("checkpoints/best.pt", True), ("checkpoints/1000/data", True), ("checkpoints/1000/data", False)]
)
def test_files_beside_anybody_elses_checkpoints_are_not_written_over(theirs, model, data, tmp_path, capsys):
    """Other trainers call a folder so too, and Orbax numbers what is in it as here."""
    files = [tmp_path / theirs, *([tmp_path / "model.onnx"] if model else [])]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("theirs")
    assert main(["train", "--recipe", "standard", "--data", str(data), *SHORT, "--fresh", "--out", str(tmp_path)]) == 2
    assert f"holds {'model.onnx' if model else 'checkpoints/1000'} and no run of 'jaxsec train'" in capsys.readouterr().err
    assert all(file.read_text() == "theirs" for file in files)
