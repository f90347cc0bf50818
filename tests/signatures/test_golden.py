"""A case survives the disk bit for bit; a damaged one is refused in a sentence that says how to record it."""

import gc
import json
from dataclasses import replace

import numpy as np
import pytest

from signatures import Case, Run, Tolerance
from signatures.errors import ArtifactError

CASE = Case(
    "tiny",
    (
        Run("t1", {"x": np.ones((2, 1, 3), np.float32)}, {"h": np.full((2, 4), 1 / 3, np.float32)}),
        Run("t2", {"x": np.zeros((2, 2), np.int32)}, {"h": np.eye(2, 4, dtype=np.float32), "c": np.float32([-0.0])}),
    ),
    Tolerance(1e-4, 2e-6),
    {"seed": 7, "witnesses": ["keras", "reference"]},
)


@pytest.fixture
def folder(tmp_path):
    CASE.save(tmp_path / "deep" / "case")
    return tmp_path / "deep" / "case"


@pytest.mark.parametrize("as_given", [str, lambda path: path], ids=["text", "path"])
def test_round_trip(folder, as_given):
    loaded = Case.load(as_given(folder))
    assert (loaded.name, loaded.tolerance, loaded.recipe) == ("tiny", Tolerance(1e-4, 2e-6), CASE.recipe)
    assert [run.name for run in loaded.runs] == ["t1", "t2"]
    for saved, read in zip(CASE.runs, loaded.runs, strict=True):
        for kind in ("feeds", "expect"):
            want, got = getattr(saved, kind), getattr(read, kind)
            assert set(got) == set(want)
            for port, array in want.items():
                assert got[port].dtype == array.dtype
                assert got[port].shape == array.shape
                assert got[port].tobytes() == array.tobytes()


def test_the_tolerance_is_1e_5_unless_the_case_says_otherwise():
    assert Case("tiny", ()).tolerance == Tolerance(atol=1e-5, rtol=1e-5)


def test_the_folder_holds_one_npy_for_each_tensor(folder):
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tensors = {"feeds/t1/x.npy", "feeds/t2/x.npy", "expect/t1/h.npy", "expect/t2/h.npy", "expect/t2/c.npy"}
    assert files == {"recipe.json", *tensors}


def test_save_never_overwrites(folder):
    before = (folder / "recipe.json").read_bytes()
    with pytest.raises(FileExistsError):
        Case("other", ()).save(folder)
    assert (folder / "recipe.json").read_bytes() == before


def change_recipe(**changes):
    def change(folder):
        recipe = {**json.loads((folder / "recipe.json").read_text()), **changes}
        (folder / "recipe.json").write_text(json.dumps({k: v for k, v in recipe.items() if v is not None}))

    return change


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut_short(folder):
    file = folder / "expect/t2/h.npy"
    file.write_bytes(file.read_bytes()[:-5])


def pickled(folder):
    np.save(folder / "feeds/t1/x.npy", np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "recipe.json").unlink(),
        write("recipe.json", b"{"),
        write("recipe.json", b"[]"),
        write("recipe.json", b"\xff\xfe"),
        change_recipe(schema=None),
        change_recipe(tolerance=None),
        change_recipe(tolerance={"absolute": 1}),
        change_recipe(runs=None),
        change_recipe(runs=["t1", "t3"]),
        change_recipe(name=None),
        lambda folder: [(folder / "expect/t2" / name).unlink() for name in ("h.npy", "c.npy")],
        write("feeds/t1/x.npy", b""),
        write("feeds/t1/x.npy", b"not an array"),
        cut_short,
        pickled,
    ],
    ids=[
        "no_recipe",
        "not_json",
        "not_an_object",
        "not_text",
        "no_schema",
        "no_tolerance",
        "strange_tolerance",
        "no_runs",
        "a_run_without_files",
        "no_name",
        "no_expectation",
        "empty_array",
        "no_array",
        "array_cut_short",
        "pickle",
    ],
)
def test_a_damaged_case_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(ArtifactError) as refused:
        Case.load(folder)
    assert str(refused.value).startswith(f"{folder}: not a golden case (")
    assert str(refused.value).endswith("Record one: export-lstm golden MODEL -o CASE")


def archive(folder):
    np.savez(folder / "two.npz", a=np.zeros(2), b=np.zeros(3))
    (folder / "two.npz").rename(folder / "feeds/t1/x.npy")


@pytest.mark.parametrize("damage", [write("feeds/t1/x.npy", b"PK\x03\x04"), archive], ids=["broken", "whole"])
def test_an_archive_in_an_arrays_place_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(ArtifactError, match="not a golden case"):
        Case.load(folder)
    gc.collect()  # a file left open would warn here, not in some later test


def test_noise_and_inputs_are_kept_with_a_case(tmp_path):
    noise = {"h": 0.5, "c": 2.0}
    told = replace(CASE, runs=(CASE.runs[0], replace(CASE.runs[1], noise=noise, inputs="one-hot")))
    told.save(tmp_path / "case")
    again = Case.load(tmp_path / "case")
    assert [run.noise for run in again.runs] == [{}, noise]
    assert again.noise == noise
    assert again.inputs == {"t2": "one-hot"}
    assert "noise" not in again.recipe


def test_a_case_without_noise_widens_nothing(folder):
    recipe = json.loads((folder / "recipe.json").read_text())
    for name in ("noise", "inputs"):
        recipe.pop(name)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    case = Case.load(folder)
    assert (case.noise, case.inputs) == ({}, {})


@pytest.mark.parametrize("noise", [-1, "loud", float("nan"), float("inf"), None, [1]])
def test_noise_is_a_number_from_0_up(folder, noise):
    change_recipe(noise={"t1": {"h": noise}})(folder)
    with pytest.raises(ArtifactError, match="not a golden case"):
        Case.load(folder)


RANGE = np.linspace(-1, 1, 11, dtype=np.float32)


@pytest.mark.parametrize(
    ("expect", "noise", "factor"),
    [
        (RANGE, 0.0, 1),
        (RANGE, 0.25, 1),
        (RANGE, 10.0, 40),
        (RANGE, 99.0, 396),
        (RANGE, 101.0, 1),  # times 2e-5 is more than a thousandth of 2
        (np.ones(3, np.float32), 10.0, 1),  # a port whose range is 0
        (np.arange(10**6, dtype=np.int32), 10.0, 1),
        (np.zeros((2, 0), np.float32), 10.0, 1),
    ],
)
def test_a_port_may_be_off_by_four_times_a_noise_that_is_small_beside_its_range(expect, noise, factor):
    assert Tolerance().factor(expect, noise) == factor


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"not a golden case \(ValueError: it can't be read \(No such file"):
        Case.load(tmp_path / "nowhere")


def test_another_schema_is_refused(folder):
    change_recipe(schema=99)(folder)
    with pytest.raises(ArtifactError, match=r"another schema than 1; record it again\.$"):
        Case.load(folder)


@pytest.mark.parametrize(
    "change", [{"runs": ["../elsewhere"]}, {"tolerance": {"atol": "wide", "rtol": 1e-5}}], ids=["outside", "words"]
)
def test_a_recipe_that_names_other_folders_or_no_numbers_is_refused(folder, change):
    change_recipe(**change)(folder)
    with pytest.raises(ArtifactError, match="not a golden case"):
        Case.load(folder)
