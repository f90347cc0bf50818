"""Fixtures shared by all tests: golden models are exported once a session and used everywhere."""

import gc
import os
import runpy
import shutil
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CFLAGS", "-O1")  # sources in C are compiled often and run for a moment

import pytest

gc.set_threshold(200_000, 20, 100)  # graphs live on: to look through them again and again takes a tenth of the time

SHARED = ("exported", "made")
"""Fixtures that export for several tests."""

CASE_OF = ("name", "case")
"""Parameters of tests that name a golden case."""

FAST = (
    *("signatures", "exporter/memory", "exporter/targets", "exporter/test_inside.py", "exporter/test_tables.py"),
    *("exporter/lower/test_masking.py", "exporter/lower/test_plan.py", "exporter/model/test_boundary.py"),
    *("exporter/prove/test_draws.py", "exporter/prove/test_reference.py"),
)
"""Where the tests are that `make test-fast` runs."""

ROOT = Path(__file__).parent.parent
TARGETS_OF = {
    **{"narrow": ("onnx", "savedmodel"), "wide": ("onnx", "savedmodel")},
    **{"encoder_decoder": "all", "backwards": "all", "bidirectional": "all"},  # which can't be stepped
}
"""Golden case -> the targets it has, where those aren't all and C."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Let one worker run all tests of a golden case, of the example, or of a module: what they share is made once."""
    here = Path(__file__).parent
    for item in items:
        if any(item.path.is_relative_to(here / place) for place in FAST):
            item.add_marker(pytest.mark.fast)
        if "example" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("example"))
        elif not {*SHARED}.isdisjoint(item.fixturenames):
            given = item.callspec.params if hasattr(item, "callspec") else {}
            cases = (given[name] for name in CASE_OF if (ROOT / "golden" / str(given.get(name))).is_dir())
            item.add_marker(pytest.mark.xdist_group(next(cases, item.path.stem)))


def pytest_collection_finish():
    """Leave out what takes time and no test looks at."""
    gc.collect()
    gc.freeze()  # modules live on: each collection would look through all of them
    if "tensorflow" in sys.modules:
        from tensorflow.python.util import tf_stack

        stack = tf_stack.extract_stack()
        tf_stack.extract_stack = lambda stacklevel=1: stack  # every operation of a graph keeps the one it was made in


@pytest.fixture(scope="session")
def golden_folder():
    """The folder of golden cases."""
    return ROOT / "golden"


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """Return the artifacts of the model of examples/, target -> Artifact, exported and checked once, beside it."""
    from exporter import export

    folder = tmp_path_factory.mktemp("example")
    shutil.copyfile(ROOT / "examples" / "japanese_vowels" / "model.keras", folder / "model.keras")
    return {artifact.target: artifact for artifact in export(folder / "model.keras", "all", folder)}


@pytest.fixture(scope="session")
def exported(tmp_path_factory, golden_folder):
    """Return a function: golden case, options -> {target: Artifact}, exported once for each combination."""
    made = {}
    runpy.run_path(str(golden_folder / "make.py"))  # registers the cell of own_cell

    def export_case(name, **options):
        options = {option: value for option, value in options.items() if value is not False}  # the default
        key = name, tuple(sorted(options.items()))
        if key not in made:
            from exporter import export

            targets = TARGETS_OF.get(name, "all" if options.get("batch") == "any" else ("all", "c"))
            folder = tmp_path_factory.mktemp(name)
            artifacts = export(golden_folder / name / "model.keras", targets, folder, check=False, **options)
            made[key] = {artifact.target: artifact for artifact in artifacts}
        return made[key]

    return export_case
