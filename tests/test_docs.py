"""The README can't drift: its Python runs, its options are the command line's, its ports are the contract's."""

import re
import shutil
from pathlib import Path

import pytest

from exporter.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_option_is_in_the_readme():
    table = README.split("## Options")[1].split("## Where")[0]
    missing = [
        (name, option)
        for name, command in main.commands.items()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("-") and f"`{option}`" not in table and f" {option}`" not in table
    ]
    assert missing == []


def test_every_option_in_the_readme_exists():
    known = {o for command in main.commands.values() for p in command.params for o in p.opts} | {"--help", "--version"}
    assert set(re.findall(r"--[a-z][a-z-]+", README)) - known == {"--no-deps"}  # pip's


@pytest.mark.parametrize("code", re.findall(r"<!-- run -->\n```python\n(.*?)```", README, flags=re.DOTALL))
def test_python_in_the_readme_runs(code, tmp_path, monkeypatch, capsys):
    shutil.copyfile(ROOT / "examples" / "japanese_vowels" / "model.keras", tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    if "stream" in names:
        assert "(1, 9) ['lstm_low_h_in'" in capsys.readouterr().out
    else:
        assert names["sequences"].shape == (2, 5, 8)


def test_the_language_examples_name_the_contracts_ports(tmp_path):
    """The carries spelled out for C++ and Kotlin are the real model's."""
    from exporter.pipeline import load_model, open_model

    contract = open_model(load_model(ROOT / "examples" / "japanese_vowels" / "model.keras")).contract(("tflite",))
    carries = {(carry.output, carry.input) for carry in contract.signatures["step"].carries}
    cpp = README.split("```cpp")[1].split("```")[0]
    kotlin = README.split("```kotlin")[1].split("```")[0]
    assert set(re.findall(r'\{"(\w+)", "(\w+)"\}', cpp)) == carries
    assert set(re.findall(r'"(\w+)" to "(\w+)"', kotlin)) == carries
    assert all(f'"{port.name}"' in kotlin for port in contract.signatures["step"].inputs)


def test_make_prints_its_targets():
    import subprocess

    out = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "test", "golden", "golden-check", "dist", "setup"} <= set(targets)
    assert [line.split()[1] for line in out.splitlines()] == targets
