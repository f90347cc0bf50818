"""An artifact with wrong numbers is not delivered, and the message says which port, where and by how much."""

import numpy as np
import pytest

from exporter import export
from exporter.lower import block, cell
from signatures.errors import ParityError


@pytest.mark.parametrize(("target", "module"), [("tflite", cell), ("savedmodel", block)])
def test_swapped_gates_are_not_delivered(target, module, tmp_path, golden_folder, monkeypatch):
    right = module.weights

    def swapped(recurrence):
        arrays = dict(right(recurrence))
        name = next(iter(arrays))
        i, f, g, o = np.split(arrays[name], 4, axis=-1)
        return {**arrays, name: np.concatenate([f, i, g, o], axis=-1)}

    for user in (module, *(_users(module))):
        monkeypatch.setattr(user, "weights", swapped)
    with pytest.raises(ParityError, match=r"port '(lstm|low|high|y).* at \[.*max \|difference\|"):
        export(golden_folder / "stacked" / "model.keras", target, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_swapped_onnx_gates_are_not_delivered(tmp_path, golden_folder, monkeypatch):
    from exporter.targets.onnx import write

    monkeypatch.setattr(write, "reorder", lambda blocks, gates, order: blocks)
    with pytest.raises(ParityError, match="port"):
        export(golden_folder / "stacked" / "model.keras", "onnx", f"{tmp_path}/")
    assert list(tmp_path.iterdir()) == []


def _users(module):
    from exporter.lower import loop, scan, unrolled

    return (loop, scan, unrolled) if module is cell else ()
