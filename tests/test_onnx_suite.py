# SPDX-License-Identifier: BSD-3-Clause
"""The tests and the models that the onnx package brings along."""

import re
import unittest
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from support import max_error

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import fastconv.onnx  # noqa: E402
from onnx_models import algorithms, array  # noqa: E402

#: What of `onnx.backend.test` does not run, by a pattern of the names, and why.
EXCLUDED = {
    r"^test_bernoulli": "random numbers",
    r"^test_range_.*_expanded": "onnx.reference stacks scalars of a Loop as rows",
    r"^test_scan_sum_cpu": "onnx.reference cannot run Scan of opset 8",
    r"^test_(identity_sequence|if_seq|loop\d+_seq|sequence_insert|sequence_map|split_to_sequence)": "sequences",
    r"^test_(identity|if)_opt_": "values that may be missing, in or out",
    r"^test_optional_(get_element_(optional|seq)|has_element_(empty_opt|opt|tensor))": "the same",
    r"string|^test_strnorm|regex_full_match|label_encoder_tensor": "strings in or out",
    r"^test_gradient_of": "training",
    r"^test_PReLU_.d_multiparam": "opset 6, whose slopes the version converter leaves as they are",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Node", "Simple", "PyTorchConverted", "PyTorchOperator"])
def test_the_suite_of_onnx(kind):
    """All but the models that have to be downloaded, with its own tolerances: 1e-3, and 1e-7 near zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its cases compute beyond the range of their types
        import onnx.backend.test

        suite = onnx.backend.test.BackendTest(fastconv.onnx.Backend, __name__).test_cases
        (cases,) = (case for name, case in suite.items() if name == f"OnnxBackend{kind}ModelTest")
        names = [name for name in dir(cases) if name.startswith("test_") and name.endswith("_cpu")]
        served = [name for name in names if not any(re.search(pattern, name) for pattern in EXCLUDED)]
        result = unittest.TestResult()
        unittest.TestSuite(map(cases, served)).run(result)
    assert not result.errors, "\n".join(text for _, text in result.errors[:3])
    assert not result.failures, "\n".join(text for _, text in result.failures[:3])
    assert not result.skipped
    assert result.testsRun == len(served) > 5
    assert not [name for name in set(names) - set(served) if re.search("conv|pool", name, re.IGNORECASE)]


LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


@pytest.fixture(scope="module")
def many_weights():
    """A prime number of normal ones, which any array is filled with: drawing those of a VGG takes seconds."""
    return np.random.default_rng(0).standard_normal(999_983, np.float32)


def test_there_are_light_models():
    assert len(LIGHT) > 5


@pytest.mark.slow
@pytest.mark.parametrize("file", LIGHT, ids=lambda file: file.stem)
def test_light_models(file, many_weights):
    """With random weights in place of those that are all the same, against ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime")
    model = onnx.load(file)
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for made in model.graph.node:
        if made.op_type != "ConstantOfShape":
            kept.append(made)
            continue
        shape = tuple(known[made.input[0]])
        weights = np.resize(many_weights, shape)
        if len(shape) < 2:
            weights = np.abs(weights) / 5 + 0.5
        else:
            weights *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        model.graph.initializer.append(numpy_helper.from_array(weights, made.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    scores = next((made.input[0] for made in kept if made.op_type == "Softmax"), kept[-1].output[0])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(scores, TensorProto.FLOAT, None))
    net = fc.compile(model)
    assert "python" not in algorithms(net)
    name, image = net.inputs[0].name, array(*net.inputs[0].shape)
    found, written = net(image), model.SerializeToString()
    del net, model, known, kept, made  # half a gigabyte of weights each, and the session has its own
    (right,) = runtime.InferenceSession(written, providers=["CPUExecutionProvider"]).run(None, {name: image})
    assert right.std() > 0.01 * np.abs(right).max()
    assert max_error(found, right) < 1e-4
