"""Laws of the package as a whole: what `import jaxsec` costs, and which room may import which."""

import ast
import json
import pathlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

import jaxsec

PACKAGE = pathlib.Path(jaxsec.__file__).parent

# Lowest first: a room may import the rooms to its left and itself.
ROOMS = [
    *("_native", "core", "io", "threat", "attack", "bound", "smooth", "certify", "explain", "poison", "privacy", "extract"),
    *("detect", "train", "serve", "audit", "cli", "__main__"),
]
HEAVY = ("matplotlib", "sklearn", "onnx", "flax", "torch", "typer", "rich", "jinja2", "equinox")


def room_of(module: str) -> str:
    """`jaxsec.attack._pgd` -> `attack`; the package itself -> ``."""
    return module.split(".")[1] if "." in module else ""


def modules() -> list[tuple[str, pathlib.Path]]:
    """(dotted name, file) of every module; a package's own name for its `__init__`."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(name: str, path: pathlib.Path, source: str | None = None) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import, those inside functions too; names imported from a package count as its modules."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1] + ([base] if base else []))
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def wrong_arrows(name: str, path: pathlib.Path, source: str | None = None) -> list[str]:
    """Every import of `name` that does not point downward. `__init__` of the package may import any room."""
    here = room_of(name)
    found = []
    for line, target in imports(name, path, source):
        if target.split(".")[0] != "jaxsec" or not here:
            continue
        there = room_of(target)
        if there == "__version__":
            continue
        if there not in ROOMS:
            found.append(f"{path.name}:{line} imports {target}: import the room that defines it, not the package")
        elif ROOMS.index(there) > ROOMS.index(here):
            found.append(f"{name}:{line} imports {target}, a room above {here}")
    return found


def test_every_module_is_in_a_known_room() -> None:
    unknown = {room_of(name) for name, _ in modules()} - {"", *ROOMS}
    assert not unknown, f"rooms {sorted(unknown)} are not in ROOMS; put each where its imports allow"


def test_imports_point_downward() -> None:
    wrong = [text for name, path in modules() for text in wrong_arrows(name, path)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("from ..attack import attack", 1),
        ("def f():\n    from jaxsec.bound import IBP", 1),
        ("from .. import audit", 1),
        ("from jaxsec import attack", 1),
        ("import jaxsec.cli", 1),
        ("import jaxsec", 1),
        ("from ..core import Model\nfrom .. import core\nfrom . import _ball\nimport numpy\nfrom jaxsec import __version__", 0),
    ],
)
def test_the_arrow_check_sees(source: str, count: int) -> None:
    assert len(wrong_arrows("jaxsec.threat._made_up", PACKAGE / "threat" / "_made_up.py", source)) == count


def test_no_private_jax() -> None:
    private = re.compile(r"\bjax\._src\b|\bjaxlib\._|from jax\.interpreters|from jax import _src")
    found = [f"{path.name}:{n}" for _, path in modules() for n, line in enumerate(path.read_text().splitlines(), 1) if private.search(line)]
    assert not found, f"private JAX names in {found}"


def in_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout


def test_import_loads_nothing_heavy() -> None:
    # `import jax, optax` alone is the yardstick: what those bring is not ours to answer for.
    loaded = json.loads(in_fresh_process("import sys, json, jaxsec; print(json.dumps(sorted(sys.modules)))"))
    tops = {name.split(".")[0] for name in loaded}
    assert "jaxsec" in tops
    heavy = tops & set(HEAVY) | {"scipy.stats"} & set(loaded)
    assert not heavy, f"import jaxsec loads {sorted(heavy)}; import them inside the functions that need them"


def test_import_starts_no_backend() -> None:
    # JAX refuses to change the number of CPU devices once a backend is up; so a change that works proves that none was.
    code = "import jaxsec, jax; jax.config.update('jax_num_cpu_devices', 3); print(len(jax.devices('cpu')))"
    assert in_fresh_process(f"import os; os.environ.pop('XLA_FLAGS', None); {code}").strip() == "3"
    with pytest.raises(subprocess.CalledProcessError):
        in_fresh_process(f"import os; os.environ.pop('XLA_FLAGS', None); import jax.numpy as jnp; jnp.zeros(1); {code}")


def test_the_build_takes_the_headers_of_the_oldest_jax() -> None:
    # XLA refuses handlers that were built with newer headers than its own, so newer ones at build time shut out older jax.
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    oldest = next(r for r in project["project"]["dependencies"] if re.match(r"jax\b", r)).removeprefix("jax>=")
    assert f"jax=={oldest}.*" in project["build-system"]["requires"]


def test_the_typing_marker_is_there() -> None:
    assert (PACKAGE / "py.typed").is_file()
