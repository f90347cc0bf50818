"""Golden cases: feeds, expected outputs and the tolerance between them, as a folder of one `.npy` a tensor.

CASE/recipe.json              what it is, how it was made, its tolerance, the noise of its runs
CASE/model.keras              the model (its path is in the recipe)
CASE/feeds/RUN/PORT.npy       a call of the `sequence` signature
CASE/expect/RUN/PORT.npy      what it must give
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .errors import ArtifactError, one_line
from .ports import Array

SCHEMA = 1

ROUNDINGS = {"float64": 1e-10, "float32": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}
"""Type a model computes in -> how closely its numbers agree, finest type first.

16-bit types: ten roundings of size 2**-10 and 2**-7, which some hundred steps of a recurrence don't pass.
"""


TIMES_NOISE, SHARE = 4, 1e-3
"""A port may be off by TIMES_NOISE times its noise where the noise is below this SHARE of the range of its values."""


@dataclass(frozen=True)
class Tolerance:
    """A value passes when `|got - expected| <= atol + rtol * |expected|`.

    Attributes:
        atol: Absolute.
        rtol: Relative to what is expected.
    """

    atol: float = 1e-5
    rtol: float = 1e-5

    def around(self, expect: Array) -> Array:
        """Return how far off each value may be."""
        return np.asarray(self.atol + self.rtol * np.abs(expect.astype(np.float64)))

    def factor(self, expect: Array, noise: float) -> float:
        """Return how many tolerances a port may be off by: one, or TIMES_NOISE times its noise where that is more.

        Noise beyond SHARE of the port's range would hide what is wrong, what isn't finite has no range, and no whole
        number is rounded: one, then.

        Args:
            expect: The port's values, those of all samples.
            noise: Its noise, see Run.
        """
        if expect.dtype.kind != "f" or not expect.size or not np.isfinite(expect).all():
            return 1.0
        small = noise * self.around(expect).max() < SHARE * np.ptp(expect.astype(np.float64))
        return max(1.0, TIMES_NOISE * noise) if small else 1.0

    @classmethod
    def of(cls, dtype: str) -> "Tolerance":
        """Return the tolerance for a model that computes in a type; see ROUNDINGS."""
        return cls(ROUNDINGS[dtype], ROUNDINGS[dtype])


@dataclass(frozen=True)
class Run:
    """One call of `sequence`.

    Attributes:
        name: What it shows, "t7".
        feeds: Input port -> array, batch first.
        expect: Output port -> array.
        noise: Output port -> how far the model's own type, in Keras and with weights shaken by a rounding, is from
            float64 on these feeds: the largest difference as a multiple of the tolerance. Empty: nothing is known.
        inputs: The kind of numbers it is fed with, "normal".
    """

    name: str
    feeds: Mapping[str, Array]
    expect: Mapping[str, Array]
    noise: Mapping[str, float] = field(default_factory=dict)
    inputs: str = ""


@dataclass(frozen=True)
class Case:
    """A model's golden calls.

    Attributes:
        name: What it is of.
        runs: The calls.
        tolerance: How closely an artifact must agree.
        recipe: How it was made: witnesses and their largest difference, versions.
    """

    name: str
    runs: tuple[Run, ...]
    tolerance: Tolerance = Tolerance()
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noise(self) -> dict[str, float]:
        """Output port -> its largest noise in any run."""
        ports = dict.fromkeys(port for run in self.runs for port in run.noise)
        return {port: max(run.noise.get(port, 0.0) for run in self.runs) for port in ports}

    @property
    def inputs(self) -> dict[str, str]:
        """Run -> the kind of numbers it is fed with, where that is known."""
        return {run.name: run.inputs for run in self.runs if run.inputs}

    def save(self, folder: Path) -> None:
        """Write the case as a folder, which must not exist yet."""
        folder.mkdir(parents=True)
        for run in self.runs:
            for kind, arrays in (("feeds", run.feeds), ("expect", run.expect)):
                (folder / kind / run.name).mkdir(parents=True)
                for port, array in arrays.items():
                    np.save(folder / kind / run.name / f"{port}.npy", array, allow_pickle=False)
        header = {"schema": SCHEMA, "name": self.name, "runs": [run.name for run in self.runs], "inputs": self.inputs}
        header["noise"] = {run.name: dict(run.noise) for run in self.runs if run.noise}
        text = json.dumps({**self.recipe, **header, "tolerance": asdict(self.tolerance)}, indent=2)
        (folder / "recipe.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Case":
        """Read a case.

        Raises:
            ArtifactError: When the folder is not a case, or a file of it is missing or damaged.
        """
        folder = Path(folder)
        try:
            recipe = json.loads(files.read(folder / "recipe.json", files.TEXT))
            if recipe.pop("schema") != SCHEMA:
                raise ArtifactError(f"{folder}: the case has another schema than {SCHEMA}; record it again.")
            tolerance = Tolerance(**{name: float(value) for name, value in recipe.pop("tolerance").items()})
            if not all(0 <= value < math.inf for value in (tolerance.atol, tolerance.rtol)):
                raise ValueError(f"tolerance {tolerance.atol}, {tolerance.rtol}")
            if outside := [n for n in recipe["runs"] if Path(n).name != n]:
                raise ValueError(f"run {outside[0]!r} is not a folder of the case")
            noise, inputs = recipe.pop("noise", {}), recipe.pop("inputs", {})
            runs = tuple(
                Run(
                    n,
                    _read(folder / "feeds" / n),
                    _read(folder / "expect" / n),
                    noises(noise.get(n, {})),
                    str(inputs.get(n, "")),
                )
                for n in recipe.pop("runs")
            )
            return cls(str(recipe.pop("name")), runs, tolerance, recipe)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ArtifactError(
                f"{folder}: not a golden case ({one_line(error)}). Record one: export-lstm golden MODEL -o CASE"
            ) from None


def noises(data: Mapping[str, Any]) -> dict[str, float]:
    """Read port -> noise.

    Raises:
        ValueError: When one is no number from 0 up.
    """
    found = {str(port): float(value) for port, value in data.items()}
    if not all(0 <= value < math.inf for value in found.values()):
        raise ValueError(f"noise {data!r}")
    return found


def _read(folder: Path) -> dict[str, Array]:
    arrays = {file.stem: files.read_npy(file) for file in sorted(folder.glob("*.npy"))}
    if not arrays:
        raise FileNotFoundError(f"no .npy in {folder}")
    return arrays
