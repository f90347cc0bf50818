"""Files of Keras 2 compute in Keras 3 what they computed: by tf-keras' own predictions, and by NumPy where it can't."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from exporter.read.loading import load, require_keras
from signatures.errors import LoadError, UnsafeModel

FOLDER = Path(__file__).parent / "legacy"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 3))


def arrays(saved, letter):
    return [saved[key] for key in sorted(saved) if key.startswith(letter)]


def outputs(path, *inputs):
    """Return what the loaded model gives, as a list."""
    given = load(path).model(list(inputs) if len(inputs) > 1 else inputs[0])
    return [each.numpy() for each in (given if isinstance(given, list | tuple) else [given])]


def write(path, config, weights, version="2.2.4", class_name="Sequential"):
    """Write a whole model as Keras 2 did; weights: layer -> weight name -> array."""
    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["keras_version"] = version
        file.attrs["model_config"] = json.dumps({"class_name": class_name, "config": config})
        groups = file.create_group("model_weights")
        groups.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, values in weights.items():
            group = groups.require_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in values]
            for name, value in values.items():
                group[name] = np.asarray(value, np.float32)
    return path


def entry(class_name, name, **options):
    return {"class_name": class_name, "config": {"name": name, "trainable": True, **options}}


def lstm_entry(name="memory", **options):
    common = {"units": 2, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "implementation": 1}
    return entry("LSTM", name, **{"batch_input_shape": [None, 5, 3], **common, **options})


def drawn(name, *shapes):
    """Draw a kernel, recurrent kernel and bias, or a kernel and bias, by Keras' names."""
    kinds = ("kernel:0", "recurrent_kernel:0", "bias:0") if len(shapes) == 3 else ("kernel:0", "bias:0")
    return {f"{name}/{kind}": RNG.normal(0, 0.7, shape) for kind, shape in zip(kinds, shapes, strict=True)}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def lstm(x, kernel, recurrent, bias, gate=sigmoid):
    """Run an LSTM over [B, T, F], gate order i f c o; return all h."""
    h = c = np.zeros((len(x), recurrent.shape[0]))
    states = []
    for step in np.swapaxes(x, 0, 1):
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4, axis=1)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
        states.append(h)
    return np.stack(states, axis=1)


def gru(x, kernel, recurrent, bias, gate=sigmoid, after=None):
    """Run a GRU, gate order z r h; `after` is the recurrent bias of reset_after. Return the last h."""
    h = np.zeros((len(x), recurrent.shape[0]))
    for step in np.swapaxes(x, 0, 1):
        xz, xr, xh = np.split(step @ kernel + bias, 3, axis=1)
        uz, ur, uh = np.split(recurrent, 3, axis=1)
        bz, br, bh = np.split(np.zeros(recurrent.shape[1]) if after is None else after, 3)
        z, r = gate(xz + h @ uz + bz), gate(xr + h @ ur + br)
        candidate = np.tanh(xh + ((r * h) @ uh if after is None else r * (h @ uh + bh)))
        h = z * h + (1 - z) * candidate
    return h


def close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


class TestFilesOfTfKeras:
    @pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.h5")))
    def test_predicts_as_tf_keras(self, name):
        with np.load(FOLDER / f"{name}.npz") as saved:
            found = outputs(FOLDER / f"{name}.h5", *arrays(saved, "x"))
            expected = arrays(saved, "y")
        assert len(found) == len(expected) > 0
        for ours, theirs in zip(found, expected, strict=True):
            assert np.ptp(theirs) > 0.1
            close(ours, theirs)

    def test_there_are_files(self):
        files = list(FOLDER.glob("*.h5"))
        assert len(files) == 9
        assert all(path.stat().st_size < 40_000 for path in FOLDER.iterdir())

    def test_text_holds_the_state_of_a_training(self):
        with h5py.File(FOLDER / "text.h5") as file:
            assert "optimizer_weights" in file
            assert "training_config" in file.attrs

    def test_the_hard_sigmoid_has_its_own_name(self):
        first, second, head = load(FOLDER / "stacked.h5").model.layers
        names = {first.recurrent_activation.__name__, second.activation.__name__, head.activation.__name__}
        assert names == {"keras2_hard_sigmoid"}
        assert first.activation.__name__ == "tanh"

    def test_tokens_are_integers(self, tmp_path):
        words = entry("Embedding", "words", input_dim=4, output_dim=3, batch_input_shape=[None, 5], dtype="float32")
        inner = {"class_name": "Sequential", "config": [words]}  # in a list it has no name
        weights = {"sequential_1": {"words/embeddings:0": np.ones((4, 3))}}
        model = load(write(tmp_path / "m.h5", {"name": "m", "layers": [inner]}, weights)).model
        assert [(x.name, str(x.dtype)) for x in model.inputs] == [("sequential_input", "int32")]
        assert [str(x.dtype) for x in load(FOLDER / "two_inputs.h5").model.inputs] == ["int32", "float32"]

    def test_the_type_of_an_old_embedding_is_that_of_its_tokens(self, tmp_path):
        words = entry("Embedding", "words", input_dim=4, output_dim=3, batch_input_shape=[None, 5], dtype="int32")
        inner = {"class_name": "Sequential", "config": [words]}
        table = np.arange(12.0).reshape(4, 3) / 7
        weights = {"sequential_1": {"words/embeddings:0": table}}
        model = load(write(tmp_path / "m.h5", {"name": "m", "layers": [inner]}, weights)).model
        assert [str(x.dtype) for x in model.inputs] == ["int32"]
        assert np.allclose(model(np.array([[0, 3, 1, 2, 2]])), table[[[0, 3, 1, 2, 2]]])

    def test_the_model_can_be_saved_by_keras_3(self, tmp_path):
        with np.load(FOLDER / "bidirectional.npz") as saved:
            load(FOLDER / "bidirectional.h5").model.save(tmp_path / "new.keras")
            close(outputs(tmp_path / "new.keras", saved["x0"])[0], saved["y0"])


class TestOldFiles:
    @pytest.mark.parametrize("version", ["2.0.6", b"2.2.4-tf", None])
    def test_list_without_input_layer(self, tmp_path, version):
        memory, head = drawn("memory", (3, 8), (2, 8), (8,)), drawn("head", (2, 4), (4,))
        config = [lstm_entry(), entry("Dense", "head", units=4, activation="linear")]
        path = write(tmp_path / "m.h5", config, {"memory": memory, "head": head}, version)
        last = lstm(X, *memory.values(), gate=hard_sigmoid)[:, -1]
        kernel, bias = head.values()
        close(outputs(path, X.astype(np.float32))[0], last @ kernel + bias)

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_cudnn_lstm(self, tmp_path, wrapped):
        units, weights = 2, drawn("memory", (3, 8), (2, 8), (16,))
        layer = {"class_name": "CuDNNLSTM", "config": {"name": "memory", "units": units, "return_sequences": True}}
        layer["config"]["batch_input_shape"] = [None, 5, 3]
        if wrapped:
            weights |= {f"back/{key}": RNG.normal(0, 0.7, value.shape) for key, value in weights.items()}
            layer = entry("Bidirectional", "memory", layer=layer, merge_mode="concat", batch_input_shape=[None, 5, 3])
        path = write(tmp_path / "m.h5", {"name": "m", "layers": [layer]}, {"memory": weights})

        def run(x, kernel, recurrent, bias):
            # cuDNN computes W x with W [units, inputs], which is what each gate's kernel holds row by row.
            kernels = [np.ravel(gate).reshape(units, 3).T for gate in np.split(kernel, 4, axis=1)]
            recurrents = [gate.T for gate in np.split(recurrent, 4, axis=1)]
            return lstm(x, np.hstack(kernels), np.hstack(recurrents), bias[:8] + bias[8:])

        values = list(weights.values())
        parts = [run(X, *values[:3])] + ([run(X[:, ::-1], *values[3:])[:, ::-1]] if wrapped else [])
        close(outputs(path, X.astype(np.float32))[0], np.concatenate(parts, axis=-1))

    def test_cudnn_gru(self, tmp_path):
        weights = drawn("memory", (3, 6), (2, 6), (12,))
        layer = entry("CuDNNGRU", "memory", units=2, batch_input_shape=[None, 5, 3])
        path = write(tmp_path / "m.h5", {"name": "m", "layers": [layer]}, {"memory": weights})
        kernel, recurrent, bias = weights.values()
        kernel = np.hstack([np.ravel(gate).reshape(2, 3).T for gate in np.split(kernel, 3, axis=1)])
        recurrent = np.hstack([gate.T for gate in np.split(recurrent, 3, axis=1)])
        close(outputs(path, X.astype(np.float32))[0], gru(X, kernel, recurrent, bias[:6], after=bias[6:]))

    def test_gru_of_before_reset_after(self, tmp_path):
        weights = drawn("memory", (3, 6), (2, 6), (6,))
        options = {"units": 2, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "implementation": 1}
        layer = entry("GRU", "memory", batch_input_shape=[None, 5, 3], **options)
        path = write(tmp_path / "m.h5", {"name": "m", "layers": [layer]}, {"memory": weights})
        close(outputs(path, X.astype(np.float32))[0], gru(X, *weights.values(), gate=hard_sigmoid))

    def test_slashes_and_the_nodes_of_keras_2(self, tmp_path):
        """Names with a slash, one of which becomes another's; a nested model whose first call is number 1."""
        inner = {
            "name": "part/in",
            "layers": [
                {**entry("InputLayer", "i", batch_input_shape=[None, 5, 3]), "name": "i", "inbound_nodes": []},
                {**lstm_entry("a/b", return_sequences=True), "name": "a/b", "inbound_nodes": [[["i", 0, 0, {}]]]},
            ],
            "input_layers": [["i", 0, 0]],
            "output_layers": [["a/b", 0, 0]],
        }
        heads = [entry("Dense", name, units=2, activation="linear") for name in ("a/b", "a_b")]
        layers = [
            {**entry("InputLayer", "x", batch_input_shape=[None, 5, 3]), "name": "x", "inbound_nodes": []},
            {"class_name": "Model", "config": inner, "name": "part/in", "inbound_nodes": [[["x", 0, 0, {}]]]},
            {**heads[0], "name": "a/b", "inbound_nodes": [[["part/in", 1, 0, {}]]]},
            {**heads[1], "name": "a_b", "inbound_nodes": [[["a/b", 0, 0]]]},
        ]
        ends = {"input_layers": [["x", 0, 0]], "output_layers": [["a_b", 0, 0], ["part/in", 1, 0]]}
        memory, first, second = drawn("a/b", (3, 8), (2, 8), (8,)), drawn("h", (2, 2), (2,)), drawn("h", (2, 2), (2,))
        weights = {"part/in": memory, "a/b": first, "a_b": second}
        path = write(tmp_path / "m.h5", {"name": "m/n", "layers": layers, **ends}, weights, class_name="Model")
        sequence = lstm(X, *memory.values(), gate=hard_sigmoid)
        (kernel, bias), (kernel2, bias2) = first.values(), second.values()
        y, state = outputs(path, X.astype(np.float32))
        close(y, (sequence @ kernel + bias) @ kernel2 + bias2)
        close(state, sequence)

    def test_many_names_are_cut_in_pieces(self, tmp_path):
        weights = drawn("memory", (3, 8), (2, 8), (8,))
        path = write(tmp_path / "m.h5", {"name": "m", "layers": [lstm_entry()]}, {"memory": weights})
        with h5py.File(path, "r+") as file:
            attributes = file["model_weights/memory"].attrs
            names = list(attributes["weight_names"])
            del attributes["weight_names"]
            attributes["weight_names0"], attributes["weight_names1"] = names[:2], names[2:]
        close(outputs(path, X.astype(np.float32))[0], lstm(X, *weights.values(), gate=hard_sigmoid)[:, -1])

    def test_policies_are_objects(self, tmp_path):
        layer = lstm_entry(dtype={"class_name": "Policy", "config": {"name": "float64"}})
        weights = drawn("memory", (3, 8), (2, 8), (8,))
        path = write(tmp_path / "m.h5", {"name": "m", "layers": [layer]}, {"memory": weights})
        assert load(path).model.layers[0].compute_dtype == "float64"

    @pytest.mark.parametrize("both", [False, True])
    @pytest.mark.parametrize("merge", ["Add", "Concatenate"])
    def test_a_merged_step_is_valid_where_all_are(self, tmp_path, merge, both):
        """Keras 3 takes a step as valid where any input is."""
        words = [[1, 2, 0, 1, 2], [1, 0, 2, 0, 0]]
        x = np.array(words, np.float32)
        shape = {"batch_input_shape": [None, 5]}
        inputs = [{**entry("InputLayer", name, **shape), "name": name, "inbound_nodes": []} for name in "pq"]
        options = {"input_dim": 3, "output_dim": 3, "input_length": 5, "mask_zero": True}
        embeds = [
            {
                **entry("Embedding", f"embed_{name}", **options | {"mask_zero": both or name == "p"}),
                "name": f"embed_{name}",
                "inbound_nodes": [[[name, 0, 0, {}]]],
            }
            for name in "pq"
        ]
        joined = [["embed_p", 0, 0, {}], ["embed_q", 0, 0, {}]]
        concatenate = merge == "Concatenate"
        layers = [
            *inputs,
            *embeds,
            # The name that Keras 3 gives its own operation.
            {**entry(merge, "concatenate", **({"axis": -1} if concatenate else {})), "inbound_nodes": [joined]},
            {**lstm_entry(), "inbound_nodes": [[["concatenate", 0, 0, {}]]]},
        ]
        for layer in layers:
            layer["name"] = layer["config"]["name"]
        ends = {"input_layers": [["p", 0, 0], ["q", 0, 0]], "output_layers": [["memory", 0, 0]]}
        tables = {name: RNG.normal(size=(3, 3)) for name in ("embed_p", "embed_q")}
        memory = drawn("memory", (6 if concatenate else 3, 8), (2, 8), (8,))
        weights = {name: {f"{name}/embeddings:0": table} for name, table in tables.items()} | {"memory": memory}
        path = write(tmp_path / "m.h5", {"name": "m", "layers": layers, **ends}, weights, class_name="Model")
        (found,) = outputs(path, x, x[:, ::-1])
        for row, other, out in zip(x.astype(int), x[:, ::-1].astype(int), found, strict=True):
            p, q = tables["embed_p"][row], tables["embed_q"][other]
            valid = (row > 0) & (other > 0) if both else row > 0
            steps = (np.concatenate([p, q], axis=-1) if concatenate else p + q)[valid]
            expected = lstm(steps[None], *memory.values(), gate=hard_sigmoid)[0, -1] if len(steps) else np.zeros(2)
            close(out, expected)


class TestRefused:
    @pytest.fixture
    def refusal(self, tmp_path):
        """Return a function: layers and weights -> the message of the refusal without the path."""

        def refuse(*layers, weights=None, error=LoadError):
            memory = drawn("memory", (3, 8), (2, 8), (8,))
            path = write(tmp_path / "m.h5", {"name": "m", "layers": list(layers)}, weights or {"memory": memory})
            with pytest.raises(LoadError) as caught:
                load(path)
            assert type(caught.value) is error
            message = str(caught.value)
            assert str(path) in message
            assert "\n" not in message
            return message

        return refuse

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"time_major": True}, "time_major=True has no equal in Keras 3"),
            ({"colour": "blue"}, "colour='blue' has no equal in Keras 3"),
            ({"inner_init": "orthogonal"}, "inner_init='orthogonal' has no equal"),  # Keras 1
            ({"activation": "relu6"}, "activation='relu6' is no activation of Keras 2"),
            ({"dtype": {"class_name": "Policy", "config": {}}}, "names no type"),
            ({"batch_input_shape": None}, "doesn't say its input shape"),
        ],
    )
    def test_option(self, refusal, options, words):
        message = refusal(lstm_entry(**options))
        assert words in message
        assert "'memory' (LSTM)" in message or "'m' (Sequential)" in message

    def test_recurrent_activation_missing(self, refusal):
        layer = lstm_entry()
        del layer["config"]["recurrent_activation"]
        assert "layer 'memory' (LSTM): its recurrent_activation is missing" in refusal(layer)

    @pytest.mark.parametrize("name", ["TFOpLambda", "ThresholdedReLU", "LocallyConnected1D", "Mystery", "get_file"])
    def test_class(self, refusal, name):
        assert f"layer 'odd' ({name}): this class" in refusal(lstm_entry(), entry(name, "odd"))

    def test_masks_around_a_recurrent_layer_in_time_distributed(self, refusal):
        mask = entry("Masking", "mask", mask_value=0.0, batch_input_shape=[None, 4, 5, 3])
        wrapped = entry("TimeDistributed", "each", layer=lstm_entry())
        assert "layer 'each' (TimeDistributed): masks around its LSTM" in refusal(mask, wrapped)

    def test_masked_softmax(self, refusal):
        mask = entry("Masking", "mask", mask_value=0.0, batch_input_shape=[None, 5, 3])
        assert "layer 'soft' (Softmax): whether it heeds masks" in refusal(mask, entry("Softmax", "soft", axis=-1))

    def test_lambda_first(self, refusal):
        layers = [lstm_entry(time_major=True), entry("Lambda", "twice", function=["4wEAAAA=", None, None])]
        assert "layer 'twice' is a Lambda layer" in refusal(*layers, error=UnsafeModel)

    def test_bytecode_in_what_is_dropped(self, refusal):
        code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}
        assert "bytecode" in refusal(lstm_entry(kernel_initializer=code), error=UnsafeModel)

    def test_path(self, refusal):
        lookup = entry("StringLookup", "words", vocabulary="/etc/passwd")
        assert "vocabulary='/etc/passwd'" in refusal(lookup, error=UnsafeModel)

    @pytest.mark.parametrize("options", [{"training": True}, {"constants": ["x", 0, 0], "training": True}])
    def test_called_in_training(self, tmp_path, options):
        layers = [
            {**entry("InputLayer", "x", batch_input_shape=[None, 5, 3]), "name": "x", "inbound_nodes": []},
            {**lstm_entry(), "name": "memory", "inbound_nodes": [[["x", 0, 0, options]]]},
        ]
        ends = {"input_layers": [["x", 0, 0]], "output_layers": [["memory", 0, 0]]}
        weights = {"memory": drawn("memory", (3, 8), (2, 8), (8,))}
        path = write(tmp_path / "m.h5", {"name": "m", "layers": layers, **ends}, weights, class_name="Model")
        with pytest.raises(LoadError, match=r"layer 'memory' \(LSTM\): it is called with training=True"):
            load(path)

    @pytest.mark.parametrize("config", [{}, {"layers": 1}, {"layers": []}, {"layers": [{"class_name": "LSTM"}]}])
    def test_damaged_configuration(self, tmp_path, config):
        with pytest.raises(LoadError, match="the configuration of Keras 2 can't be read"):
            load(write(tmp_path / "m.h5", config, {}))


class TestWeightsRefused:
    @pytest.fixture
    def refusal(self, tmp_path):
        """Return a function: change of the file's weights group -> the message of the refusal."""

        def refuse(change):
            norm = {f"norm/{kind}:0": np.ones(2) for kind in ("gamma", "beta", "moving_mean", "moving_variance")}
            weights = {"memory": drawn("memory", (3, 8), (2, 8), (8,)), "norm": norm}
            layers = [lstm_entry(), entry("BatchNormalization", "norm", axis=[1], epsilon=0.001)]
            path = write(tmp_path / "m.h5", {"name": "m", "layers": layers}, weights)
            load(path)
            with h5py.File(path, "r+") as file:
                change(file["model_weights"])
            with pytest.raises(LoadError) as caught:
                load(path)
            return str(caught.value)

        return refuse

    def test_shape(self, refusal):
        def change(groups):
            del groups["memory/memory/kernel:0"]
            groups["memory/memory/kernel:0"] = np.zeros((4, 8), np.float32)

        assert "'memory': memory/kernel:0 has shape (4, 8), not (3, 8)" in refusal(change)

    def test_number(self, refusal):
        def change(groups):
            groups["memory"].attrs["weight_names"] = [b"memory/kernel:0", b"memory/recurrent_kernel:0"]

        assert "layer 'memory' has 3 weights, 2 in the file" in refusal(change)

    def test_order(self, refusal):
        def change(groups):
            kinds = ("moving_mean", "moving_variance", "gamma", "beta")
            groups["norm"].attrs["weight_names"] = [f"norm/{kind}:0".encode() for kind in kinds]

        assert "layer 'norm': the weight 'gamma' is 'norm/moving_mean:0' in the file" in refusal(change)

    def test_layer_without(self, refusal):
        def change(groups):
            groups.attrs["layer_names"] = [b"memory"]

        assert "2 layers of the model have weights, 1 in the file" in refusal(change)

    def test_of_the_model_itself(self, refusal):
        def change(groups):
            groups.create_group("top_level_model_weights").attrs["weight_names"] = [b"scale:0"]

        assert "the model itself, beside its layers, has weights" in refusal(change)

    def test_missing_dataset(self, refusal):
        def change(groups):
            del groups["memory/memory/kernel:0"]

        assert "the weights can't be read" in refusal(change)

    def test_convolutions_of_theano(self, tmp_path):
        layer = entry("Conv1D", "conv", filters=2, kernel_size=[3], batch_input_shape=[None, 5, 3])
        weights = {"conv": drawn("conv", (3, 3, 2), (2,))}
        path = write(tmp_path / "m.h5", {"name": "m", "layers": [layer]}, weights)
        load(path)
        with h5py.File(path, "r+") as file:
            file["model_weights"].attrs["backend"] = b"theano"
        with pytest.raises(LoadError, match="trained with Theano"):
            load(path)

    def test_external_dataset(self, refusal):
        def change(groups):
            del groups["memory/memory/kernel:0"]
            groups.create_dataset("memory/memory/kernel:0", (3, 8), "f4", external=[("/etc/hostname", 0, 96)])

        assert "is external storage" in refusal(change)


def test_hard_sigmoid():
    require_keras()
    from exporter.read.keras2 import hard_sigmoid as ours

    x = np.linspace(-4, 4, 33, dtype=np.float32)
    close(np.asarray(ours(x)), hard_sigmoid(x).astype(np.float32))
