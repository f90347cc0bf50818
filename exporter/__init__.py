"""Export Keras models with recurrent layers to SavedModel, TFLite and ONNX with explicit, proven state.

    import exporter
    exporter.export("model.keras", to="tflite")          # or a keras.Model in memory
    exporter.lstm(x, *layer.get_weights())                # the layer in plain TensorFlow

TensorFlow is imported when one of these is first used, not before.
"""

TYPE_CHECKING = False  # without typing, whose import takes longer than all that must happen before Ctrl-C is answered
if TYPE_CHECKING:
    from .lower.functional import lstm
    from .pipeline import Artifact, export, record_case
    from .request import Stage

__all__ = ["Artifact", "Stage", "export", "lstm", "record_case"]

_HOME = {
    "export": "pipeline",
    "Artifact": "pipeline",
    "record_case": "pipeline",
    "Stage": "request",
    "lstm": "lower.functional",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'exporter' has no attribute {name!r}")
    import importlib

    check_signatures()
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def check_signatures() -> None:
    """Refuse to work with another package of the name that export-lstm brings.

    Raises:
        ImportError: Saying where it is.
    """
    import signatures

    if not hasattr(signatures, "Contract"):
        raise ImportError(
            f"another package named 'signatures' ({signatures.__file__}) hides the one that export-lstm brings.\n"
            "  Install export-lstm in an environment of its own."
        )
