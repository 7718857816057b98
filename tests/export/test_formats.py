"""What other programs make of an exported network is what nnctl makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nnctl.export.check import compare
from nnctl.export.formats import FORMATS, check
from nnctl.export.html import OPTIONS
from nnctl.export.onnx import WRITERS, to_onnx, varint
from nnctl.export.python import EQUATIONS, to_python
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS
from tests.export.conftest import MODELS, make


def test_every_layer_has_an_export_in_every_format() -> None:
    assert set(WRITERS) == set(EQUATIONS) == set(OPTIONS) == set(LAYERS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["onnx", "python"])
def test_scores_are_nnctls(name: str, kind: str, images: Array, tmp_path: Path) -> None:
    model = MODELS[name]
    path = tmp_path / "model"
    path.write_bytes(FORMATS[kind].make(model, []))
    found = FORMATS[kind].run(path, model, images)
    expected = model.scores(images)
    assert found.shape == expected.shape == (600, 3)
    assert np.abs(found - expected).max() <= 2e-6 * max(1, np.abs(expected).max())
    assert expected.std(axis=0).min() > 1e-4  # they say something


@pytest.mark.parametrize("name", MODELS)
def test_onnx_passes_the_full_check_with_strict_shapes(name: str, images: Array) -> None:
    model = MODELS[name]
    data = to_onnx(model)
    proto = onnx.load_model_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    assert proto.ir_version == 8
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 17)]
    assert proto.SerializeToString() == data  # nothing in it that onnx doesn't know
    assert {tensor.name for tensor in proto.graph.initializer} >= set(model.arrays)
    session = onnxruntime.InferenceSession(data)
    (images_in,) = session.get_inputs()
    assert (images_in.name, images_in.type) == ("images", "tensor(uint8)")
    assert images_in.shape == ["batch", 5, 4]
    scores, labels = session.run([model.output, "labels"], {"images": images.reshape(-1, 5, 4)})
    assert (labels == scores.argmax(axis=1)).all()
    assert labels.dtype == np.int64


@pytest.mark.parametrize("kind", FORMATS)
def test_same_weights_give_the_same_bytes(kind: str) -> None:
    data = FORMATS[kind].make(make(["relu"]), [])
    assert FORMATS[kind].make(make(["relu"]), []) == data
    other = make(["relu"])
    other.network.parameters[0] += 1
    assert FORMATS[kind].make(other, []) != data


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16384, 2**35])
def test_varint_is_what_the_encoding_guide_says(number: int) -> None:
    encoded = varint(number)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == number
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]


@pytest.mark.parametrize("kind", ["onnx", "python"])
def test_check_finds_a_weight_that_is_not_nnctls(kind: str, images: Array) -> None:
    from nnctl.datasets import Samples

    samples = Samples(images, np.zeros(len(images), np.uint8))
    model, other = make(["relu"]), make(["relu"])
    assert check(FORMATS[kind].make(model, []), kind, model, samples).passed
    other.network.parameters[:] *= 1.05
    found = check(FORMATS[kind].make(other, []), kind, model, samples)
    assert not found.passed
    assert found.max_difference > 1e-3


def test_predictions_differ_only_beyond_noise() -> None:
    expected = np.array([[0.5, 0.500001], [0.3, 0.7]], np.float32)
    assert compare(expected, expected[:, ::-1], 1e-5).different == 1
    assert not compare(expected, np.full((2, 2), np.nan), 1e-5).passed


def test_python_file_is_a_program_of_its_own(images: Array, tmp_path: Path) -> None:
    model = MODELS["two"]
    (tmp_path / "model.py").write_bytes(to_python(model))
    np.save(tmp_path / "images.npy", images.reshape(-1, 5, 4))
    (tmp_path / "bad.npy").write_bytes(b"no")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-W", "error", "model.py", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8",
            env={"PYTHONUTF8": "1"},
        )  # fmt: skip

    names = np.array(model.class_names)
    done = call("images.npy")
    assert done.stdout.splitlines() == names[model.scores(images).argmax(axis=1)].tolist()
    assert (done.returncode, done.stderr) == (0, "")
    assert call("bad.npy").stderr == "bad.npy: neither a .npy nor an IDX file\n"
    assert call("bad.npy").returncode == 1
    assert call().returncode == 2
    assert "needs NumPy and nothing else" in call("--help").stdout


def test_python_file_can_be_read() -> None:
    text = to_python(MODELS["two"]).decode()
    assert max(map(len, text.splitlines())) <= 140
    assert '    x = x @ w["0.affine.weight"] + w["0.affine.bias"]' in text
