"""README and docs/ can't drift: their Python runs, their options, messages, ports and links are the real ones."""

import ast
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import exporter
import signatures
from exporter.cli import main
from signatures import errors

ROOT = Path(__file__).parent.parent
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")), *DOCS)
}
MANUAL = {name: text for name, text in PAGES.items() if name == "README.md" or name.startswith("docs/")}
README = PAGES["README.md"]
WORDS = 600
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"<!-- run(?:: (.*?))? -->\n```python\n(.*?)```", re.DOTALL)
BLOCKS = [(name, given, code) for name, text in MANUAL.items() for given, code in RUN.findall(text)]
# Options of other programs.
OTHERS = {"--no-deps"}


def code(text):
    """Code blocks and inline code, line by line."""
    blocks = FENCE.findall(text)
    return [
        *(line for block in blocks for line in block.splitlines()),
        *re.findall(r"`([^`\n]+)`", FENCE.sub("", text)),
    ]


def slugs(text):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    """Every word counts, those of code and tables too."""
    assert len(README.split()) <= WORDS


def test_every_option_is_told():
    told = PAGES["docs/reference/command-line.md"]
    missing = [
        (name, option)
        for name, command in main.commands.items()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("-") and f"`{option}`" not in told and f" {option}`" not in told
    ]
    assert missing == []
    assert ".. click:: exporter.cli:main" in told


@pytest.mark.parametrize("page", MANUAL)
def test_every_option_that_is_named_exists(page):
    known = {o for command in main.commands.values() for p in command.params for o in p.opts} | {"--help", "--version"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", MANUAL[page])) - known <= OTHERS


@pytest.mark.parametrize("page", MANUAL)
def test_every_command_that_is_named_exists_and_takes_its_options(page):
    for line in code(MANUAL[page]):
        for word, rest in re.findall(r"(?:^|run: )export-lstm (\S+)([^#]*)", line.strip()):
            if word.startswith("-"):
                continue
            named = re.fullmatch(r"[a-z]+", word) is not None
            assert not named or word in main.commands, line
            known = {o for p in main.commands[word if named else "export"].params for o in p.opts} | {"--help"}
            assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) <= known, line


@pytest.mark.parametrize("page", MANUAL)
def test_every_make_target_that_is_named_exists(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {found for line in code(MANUAL[page]) for found in re.findall(r"^make ([a-z-]+)", line)} <= set(targets)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", PAGES[page])):
        path, _, anchor = target.partition("#")
        if ":" in path:  # another site's
            continue
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        text = found.read_text(encoding="utf-8") if anchor else ""
        if included := re.search(r"\{include\} (\S+)", text):
            text = (found.parent / included[1]).read_text(encoding="utf-8")
        assert not anchor or anchor in slugs(text), target


def test_every_page_is_in_the_table_of_contents():
    listed = set(re.findall(r"^([a-z-]+(?:/[a-z-]+)?)$", PAGES["docs/index.md"], flags=re.MULTILINE))
    assert listed | {"index"} == {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in DOCS}


def streaming_model(name, folder):
    """Write one of the models that the page on streams is about."""
    from keras import Input, Model, layers

    x = Input((None, 6), name="x")
    if name == "strided.tflite":
        y = layers.GRU(4, return_sequences=True)(layers.Conv1D(5, 3, strides=2, padding="causal")(x))
        y = layers.Dense(3, name="y")(y)
    else:
        y = layers.Conv1D(4, 5, padding="same", name="y")(x)
    exporter.export(Model(x, y), "tflite", folder / name, check=False, lookahead=name == "late.tflite")


@pytest.mark.parametrize(
    ("page", "given", "code"), BLOCKS, ids=[f"{name} {k}" for k, (name, _, _) in enumerate(BLOCKS)]
)
def test_python_runs(page, given, code, example, tmp_path, monkeypatch, capsys):
    """What a block is given is told beside it: files, and arrays with their shapes."""
    names, folder = {}, example["onnx"].path.parent
    files = {"model.keras"}
    for name, shape in re.findall(r"([\w.]+)(?: \[([\d, ]+)\])?", given):
        if shape:
            drawn = np.random.default_rng(0).standard_normal([int(size) for size in shape.split(",")])
            names[name] = drawn.astype(np.float32)
        else:
            files |= {name, *(["model.contract.json"] if name == "model.tflite" else [])}
    for name in files & {"strided.tflite", "late.tflite"}:
        streaming_model(name, tmp_path)
    for name in files - {"strided.tflite", "late.tflite"}:
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), names)
    printed = capsys.readouterr().out
    checked = 0
    if "rows" in names:
        assert [rows.shape[1] for rows in names["rows"]] == [98, 2]
        return
    if "waveform" in names:
        want = names["model"].predict(names["samples"], verbose=0)[:, : names["waveform"].shape[1]]
        np.testing.assert_allclose(names["waveform"], want, atol=1e-5)
        assert want.shape == (1, 944)
        return
    if "samples" in names:
        assert names["outputs"]["y"].shape[1] == 40
        return
    if "outputs" in names or "speaker" in names:
        found = names["speaker"] if "speaker" in names else names["outputs"]["speaker"]
        whole = signatures.open(example["onnx"].path).stream().push(names["frames"].reshape(1, -1, 12))
        np.testing.assert_allclose(np.asarray(found), whole["speaker"], atol=1e-5)
        checked += 1
    if "print" in code:
        assert "(1, 9) ['lstm_low_h_in'" in printed
        checked += 1
    if "resumed" in names:
        assert np.any(names["resumed"].state["lstm_low_h_in"])
        assert list(names["streams"]) == ["b"]
        checked += 1
    if "sequences" in names:
        assert names["sequences"].shape == (2, 5, 8)
        checked += 1
    assert checked


def test_python_of_every_page_runs():
    """But for blocks that say they are no program: none so far."""
    for name, text in MANUAL.items():
        assert text.count("```python") == len(RUN.findall(text)), name


def test_the_error_in_the_readme_is_the_converters():
    import keras
    import tensorflow as tf

    told = README.split("ConverterError:")[1].split("```")[0]
    parts = [part.strip() for line in told.splitlines() for part in line.split("...") if part.strip()]
    assert len(parts) == 2
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4)])
    with pytest.raises(Exception, match="TensorList") as raised:
        tf.lite.TFLiteConverter.from_keras_model(model).convert()
    assert type(raised.value).__name__ == "ConverterError"
    assert all(part in str(raised.value) for part in parts)


def test_the_language_examples_name_the_contracts_ports(example):
    """The carries spelled out for C++, Kotlin and Swift are the real model's."""
    step = signatures.read_contract(example["onnx"].path).signatures["step"]
    carries = {(carry.output, carry.input) for carry in step.carries}
    phone = PAGES["docs/how-to/phone.md"]
    cpp = PAGES["docs/how-to/cpp.md"].split("```cpp")[1].split("```")[0]
    kotlin, swift = (phone.split(f"```{language}")[1].split("```")[0] for language in ("kotlin", "swift"))
    assert set(re.findall(r'\{"(\w+)", "(\w+)"\}', cpp)) == carries
    assert set(re.findall(r'"(\w+)" to "(\w+)"', kotlin)) == carries
    assert set(re.findall(r'"(\w+)": "(\w+)"', swift)) == carries
    assert all(f'"{port.name}"' in kotlin for port in step.inputs)


def texts():
    """Every text in the code that is no docstring: the parts of messages between what is filled in."""
    found = []
    for path in (*(ROOT / "exporter").rglob("*.py"), *(ROOT / "signatures").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        found += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        ]
    return "\0".join(found)


def test_every_message_that_is_quoted_is_in_the_code():
    page, said = PAGES["docs/troubleshooting.md"], texts()
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    quoted = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    quoted += re.findall(r"begins `([^`]+)`", page)
    assert len(quoted) > 100
    parts = {part.strip(" ") for message in quoted for part in message.split("…")} - {""}
    assert sorted(part for part in parts if part not in said) == []


def test_every_error_class_has_a_place_in_troubleshooting():
    headings = " ".join(re.findall(r"^## (.*)$", PAGES["docs/troubleshooting.md"], flags=re.MULTILINE))
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)} - {"ExportLSTMError"}
    assert classes == set(re.findall(r"\w+", headings)) & set(vars(errors))


@pytest.mark.parametrize("package", [exporter, signatures], ids=["exporter", "signatures"])
def test_every_public_name_is_in_the_reference(package):
    reference = PAGES["docs/reference/python.md"] + PAGES["docs/reference/contract.md"]
    told = set(re.findall(rf"^\.\. auto\w+:: {package.__name__}\.(\w+)$", reference, flags=re.MULTILINE))
    assert set(package.__all__) == told - {"errors"}


def test_the_picture_names_a_carry():
    texts = [node.text for node in ElementTree.parse(ROOT / "docs" / "signature.svg").iter() if node.text]
    assert {"lstm_h", "lstm_h_in", "lstm_c", "lstm_c_in", "frames", "speaker"} <= set(texts)


def test_ci_runs_what_anybody_can_run():
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"lint", "types", "docs", "demo", "test"} <= set(re.findall(r"^make (\S+)$", steps, flags=re.MULTILINE))
    assert set(re.findall(r"^make (\S+)$", steps, flags=re.MULTILINE)) <= set(targets)
    assert "- run: .ci/run\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_make_prints_its_targets():
    out = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "test", "docs", "golden", "golden-check", "dist", "setup"} <= set(targets)
    assert [line.split()[1] for line in out.splitlines()] == targets
