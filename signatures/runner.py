"""An opened artifact: its signatures by name, the same way in every runtime."""

from collections.abc import Callable

from .contract import Contract
from .errors import ArtifactError, one_line
from .ports import Array, Feeds
from .stream import Stream


class Runner:
    """An opened artifact. Any number of threads and streams may use it at once.

    LiteRT's interpreter runs one call at a time: threads that use it wait for each other. For calls that run side by
    side open the file once a thread. TensorFlow and ONNX Runtime run them side by side.

    Attributes:
        contract: What it takes, gives and carries.
        target: "tflite", "onnx", "savedmodel", "c" or "tflm".
        dims: Dimensions fixed in this artifact, name -> size.
    """

    def __init__(self, contract: Contract, target: str, call: Callable[[str, Feeds], dict[str, Array]]) -> None:
        """Wrap a session's `run`; `signatures.open` is the usual way here."""
        self.contract = contract
        self.target = target
        self.dims = contract.artifacts[target].dims
        self._call = call

    def run(self, signature: str, feeds: Feeds) -> dict[str, Array]:
        """Run a signature once.

        Args:
            signature: "sequence" or "step".
            feeds: Input port -> array, all of them; `contract.signatures[...].initial_state()` gives zero states.

        Returns:
            Output port -> a fresh array.

        Raises:
            FeedError: When names, shapes or types don't fit.
            ArtifactError: When the artifact has no such signature.
        """
        if signature not in self.contract.signatures:
            reason = f" {self.contract.no_step}" if self.contract.no_step else ""
            raise ArtifactError(
                f"There is no signature {signature!r}; there is {', '.join(self.contract.signatures)}.{reason}"
            )
        called = self.contract.signatures[signature]
        called.check_feeds(feeds, self.dims)
        try:
            outputs = self._call(signature, feeds)
        except Exception as error:  # each runtime raises its own, without a common base
            raise ArtifactError(f"{signature}: the runtime can't run this artifact ({one_line(error)}).") from error
        if missing := [port.name for port in called.outputs if port.name not in outputs]:
            raise ArtifactError(
                f"{signature}: the artifact gives no output {missing[0]!r}, which its contract promises."
            )
        return {port.name: outputs[port.name] for port in called.outputs}

    def stream(self, batch: int = 1, *, buffer: bool = False, trim: bool = False, quantized: bool = False) -> Stream:
        """Return a stream that starts from the beginning; see Stream."""
        return Stream(self.contract, self.dims, self.run, batch, buffer=buffer, trim=trim, quantized=quantized)
