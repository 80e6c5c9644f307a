# SPDX-License-Identifier: BSD-3-Clause
"""What `help()` says: every public name has its sections, an example, and arguments typed as what they take."""

import inspect
import re

import pytest

import fastconv as fc
from fastconv import functional, grad, models, nn, optim

FUNCTIONS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (functional, grad, models)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
CLASSES = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (nn, optim)
    for name in module.__all__
    if inspect.isclass(getattr(module, name)) and not issubclass(getattr(module, name), (Exception, tuple))
}
#: A docstring may refer to that of a sibling for its arguments and its result.
REFERS = re.compile(r"\b([Aa]s (for|in|of|those|:|`)|those of|see `)|default|Gradient of")
ARRAYS = ("input", "weight", "bias", "residual", "grad_output", "output", "indices", "target")


def has(doc, section):
    return re.search(rf"^{section}\n-+$", doc, re.MULTILINE) is not None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_take_give_and_refuse(name):
    doc = inspect.getdoc(FUNCTIONS[name])
    assert doc
    assert doc.splitlines()[0].strip()
    assert has(doc, "Parameters") or REFERS.search(doc)
    assert has(doc, "Returns") or REFERS.search(doc) or "``" in doc.splitlines()[0]  # the formula of a result
    assert has(doc, "Raises") or ".models." in name
    assert ">>>" in doc or (".models." in name and REFERS.search(doc))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if ".models." not in name])
def test_arrays_are_typed_as_what_is_like_an_array(name):
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        if parameter.name in ARRAYS:
            assert "Any" not in str(parameter.annotation), parameter


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_explained(name):
    doc = inspect.getdoc(CLASSES[name])
    assert doc
    assert "Parameters" in doc or ">>>" in doc or "`torch.nn" in doc or ":class:`" in doc


@pytest.mark.parametrize(
    ("what", "source"),
    [
        (fc.ConvPlan, "arXiv:1509.09308"),  # Lavin and Gray: Winograd's algorithms
        (fc.conv2d, "arXiv:1603.07285"),
        (fc.conv_transpose2d, "arXiv:1603.07285"),
        (fc.batch_norm, "arXiv:1502.03167"),
        (fc.silu, "arXiv:1702.03118"),
        (fc.hardswish, "arXiv:1905.02244"),
        (fc.cross_entropy, "arXiv:1512.00567"),
        (optim.Adam, "arXiv:1412.6980"),
        (optim.AdamW, "arXiv:1711.05101"),
        (optim.CosineAnnealingLR, "arXiv:1608.03983"),
        (nn.init.kaiming_uniform_, "arXiv:1502.01852"),
        (models.alexnet, "arXiv:1404.5997"),
        (models.vgg16, "arXiv:1409.1556"),
        (models.zfnet, "arXiv:1311.2901"),
    ],
)
def test_sources_are_named(what, source):
    assert source in inspect.getdoc(what)
