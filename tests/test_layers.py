"""The layers hold: which package may import which, print, or read the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "duqsweep"
FILES = sorted(PACKAGE.rglob("*.py"))
BASE = {
    "assignment",
    "background",
    "categories",
    "codec",
    "conf_dir",
    "errors",
    "exit_codes",
    "files",
    "fingerprint",
    "mailbox",
    "private",
    "processes",
    "result",
    "seams",
    "setting",
    "spec",
}
HEAVY = {"torch", "libero", "robosuite", "mujoco"}
CONTROL_ONLY = {"hydra", "omegaconf", "optuna", "mlflow", "submitit"}
# Pure Python without torch, so that the login node can resolve layers and draw ledgers.
LIGHT_WORKER_FILES = {
    "quant.select",
    "quant.cost",
    "envs.asset_files",
    "envs.assets",
    "envs.libero_pro",
    "envs.manifest",
    "envs.simulator_info",
    "kernels.expert.limits",
    "worker.child",
    "worker.ledger",
    "worker.probe",
    "worker.serve",
    "worker.simulator",
    "worker.summary",
}
# What quantizer, policy and simulator may import beside the base files.
STANDING_ON = {"quant": {"kernels"}, "policy": {"kernels", "checkpoint"}, "envs": set[str]()}
# Parts of control/ that only the loop and the command line bring together.
SIBLINGS = {"study", "dispatch", "tracking", "report", "view"}


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path, top_level_only: bool = False) -> tuple[str, ...]:
    """Absolute names of what a file imports, without type-checking blocks."""
    names: list[str] = []
    for node in _statements(parsed(path), top_level_only):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def _statements(node: ast.AST, top_level_only: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if top_level_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield child
        yield from _statements(child, top_level_only)


def ours(path: Path, top_level_only: bool = False) -> set[str]:
    found = {name for name in imports(path, top_level_only) if name.startswith("duqsweep.")}
    return {name.removeprefix("duqsweep.") for name in found}


def foreign(path: Path, top_level_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imports(path, top_level_only)}


def files_of(*parts: str) -> list[Path]:
    return [path for path in FILES if module_name(path).split(".")[0] in parts]


def each(paths: list[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make one test of what must hold for each file; a test per file would cost ten times that."""
    assert paths

    def decorate(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = {}
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    wrong[module_name(path)] = str(error)
            assert not wrong

        return test

    return decorate


@each(files_of("control", "verbs", "cli"))
def test_control_side_imports_nothing_heavy_at_module_level(path: Path) -> None:
    assert not foreign(path, top_level_only=True) & HEAVY


@each(files_of("worker", "quant", "policy", "envs", "kernels", "checkpoint", "inference"))
def test_worker_side_never_imports_the_control_sides_libraries(path: Path) -> None:
    assert not foreign(path) & CONTROL_ONLY


@each([path for path in FILES if module_name(path) in BASE])
def test_base_files_import_only_each_other(path: Path) -> None:
    assert {name.split(".")[0] for name in ours(path)} <= BASE


@each(files_of("checkpoint"))
def test_checkpoints_are_read_without_torch_or_other_rooms(path: Path) -> None:
    assert {name.split(".")[0] for name in ours(path)} <= BASE | {"checkpoint"}
    assert not foreign(path) & HEAVY


@each(files_of("kernels"))
def test_kernels_know_nothing_of_the_project(path: Path) -> None:
    assert {name.split(".")[0] for name in ours(path)} <= BASE | {"kernels"}


@each(files_of("quant", "policy", "envs"))
def test_quantizer_policy_and_simulator_are_strangers(path: Path) -> None:
    own = module_name(path).split(".")[0]
    assert {name.split(".")[0] for name in ours(path)} <= BASE | STANDING_ON[own] | {own}


@each(files_of("inference"))
def test_inference_stands_on_quantizer_policy_and_kernels(path: Path) -> None:
    below = {"kernels", "checkpoint", "quant", "policy", "inference"}
    assert {name.split(".")[0] for name in ours(path)} <= BASE | below


@each([path for path in FILES if module_name(path).split(".")[0] not in ("inference", "worker")])
def test_only_the_worker_imports_inference(path: Path) -> None:
    assert "inference" not in {name.split(".")[0] for name in ours(path)}


@each(files_of("control"))
def test_control_reaches_the_worker_side_only_through_light_files(path: Path) -> None:
    reached = ours(path, top_level_only=True) & {module_name(file) for file in FILES}
    worker_side = {
        name
        for name in reached
        if name.split(".")[0] in ("quant", "policy", "envs", "worker", "kernels", "inference")
    }
    packages = {"quant", "policy", "envs", "worker", "kernels"}
    assert worker_side - packages <= LIGHT_WORKER_FILES


@each(files_of("worker"))
def test_worker_never_imports_the_control_side(path: Path) -> None:
    assert not {name for name in ours(path) if name.split(".")[0] in ("control", "verbs", "cli")}


SHARED = {("report", "view"), ("tracking", "view")}  # the words that all views share


@each([path for path in files_of("control") if module_name(path).count(".") == 2])
def test_siblings_of_the_control_side_do_not_import_each_other(path: Path) -> None:
    own = module_name(path).split(".")[1]
    reached = {name.split(".")[1] for name in ours(path) if name.startswith("control.")}
    foreign_parts = {part for part in reached & SIBLINGS - {own} if (own, part) not in SHARED}
    assert own not in SIBLINGS or not foreign_parts


@each([path for path in files_of("control") if module_name(path) == "control.sweep"])
def test_the_loop_knows_no_library(path: Path) -> None:
    assert not foreign(path) & (CONTROL_ONLY | HEAVY)


@each([path for path in FILES if module_name(path) in LIGHT_WORKER_FILES])
def test_light_files_are_light(path: Path) -> None:
    assert not foreign(path) & (HEAVY | CONTROL_ONLY)


@each([path for path in FILES if module_name(path).split(".")[0] not in ("cli", "verbs")])
def test_only_the_command_line_and_the_views_print(path: Path) -> None:
    if module_name(path).startswith(("control.report", "control.view")):
        return
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    assert not [
        call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in run.stdout.split()}


def test_help_loads_no_library() -> None:
    loaded = loaded_by("from duqsweep.cli import main\nmain(['--help'])")
    assert not loaded & {*HEAVY, "mlflow", "optuna", "submitit"}


def test_status_and_front_load_what_they_need() -> None:
    loaded = loaded_by("import duqsweep.verbs.status, duqsweep.verbs.front")
    assert not loaded & {*HEAVY, "hydra", "mlflow", "optuna", "scipy", "sentencepiece", "submitit"}


def test_planning_and_explaining_load_no_torch() -> None:
    loaded = loaded_by("import duqsweep.verbs.plan, duqsweep.verbs.explain")
    assert not loaded & {*HEAVY, "mlflow"}


def test_composing_a_configuration_loads_neither_torch_nor_mlflow() -> None:
    loaded = loaded_by("import duqsweep.control.config.sweep_config, duqsweep.control.config.space")
    assert not loaded & {*HEAVY, "mlflow", "submitit"}


def test_the_loop_knows_protocols_and_no_part_that_does_concrete_work() -> None:
    loop = next(path for path in FILES if module_name(path) == "control.sweep")
    allowed = {"files", "assignment", "control.deaths", "control.trial_status"}
    found = {name for name in ours(loop) if (PACKAGE / f"{name.replace('.', '/')}.py").exists()}
    assert found <= allowed
