# SPDX-License-Identifier: BSD-3-Clause
"""What `help()` says: every public name has its sections, an example, and arguments typed as what they take."""

import inspect
import re

import pytest

import fastconv as fc
from fastconv import functional, grad, models, nn, optim
from fastconv._ranks import of_rank

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


#: What only a docstring of another rank says; the first line may point to the form along two axes.
STRANGE = {
    1: re.compile(r"\b(\w*[23]d|NCHW|NCDHW|NHWC|NDHWC|[OKk]?H|[OKk]D|top|front|rows|columns?)\b|int, int|image"),
    3: re.compile(r"\b(\w*[12]d|NCHW|NCW|NHWC|NWC)\b|\(int, int\)|(?<!D)(?<![OKk]D), [OKk]?H, [OKk]?W|image"),
}
FORMS = {name: what for name, what in (FUNCTIONS | CLASSES).items() if re.search(r"[13]d(_\w+)?$", name)}


def documented(doc):
    """The names in the section of parameters."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)", doc, re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^(?:\w+, )*\w+(?= : |$)", section[1], re.MULTILINE) if section else []
    return {name for entry in entries for name in entry.split(", ")}


@pytest.mark.parametrize("name", [name for name in FORMS if "BatchNorm" not in name])
def test_forms_along_one_and_three_axes_are_explained_in_full(name):
    """Every argument, and no other, in terms of these axes; the examples are those that are written."""
    doc = inspect.getdoc(FORMS[name])
    rank = int(re.search(r"([13])d", name)[1])
    body, _, examples = doc.partition("\n\n")[2].partition("Examples\n-")
    assert documented(body) == set(inspect.signature(FORMS[name]).parameters)
    assert not STRANGE[rank].search(body), STRANGE[rank].search(body)
    assert doc.count("Examples\n-") == 1
    assert re.search(rf"{rank}d", examples)


def test_a_docstring_of_another_rank():
    def f2d(input, size, shape=None):
        """Two axes.

        Of one image in a layout of NCHW, as :func:`g2d` and :func:`g2d_grad`.

        Parameters
        ----------
        input : shape (N, C, H, W) or (C, H, W), of OH, OW
        size : int or (int, int)
            OH = (H + top + bottom).
        shape : tuple
            Of which one axis knows nothing.

        Examples
        --------
        >>> 2
        2
        """

    def f1d(input, size):
        """One axis.

        Examples
        --------
        >>> 1
        1
        """

    def f3d(input, size, shape=None):
        """Three axes.

        Examples
        --------
        >>> 3
        3
        """

    assert of_rank(1, f2d)(f1d) is f1d
    expected = """\
One axis.

Of one signal in a layout of NCW, as :func:`g1d` and :func:`g1d_grad`.

Parameters
----------
input : shape (N, C, W) or (C, W), of OW
size : int or (int,)
    OW = (W + left + right).

Examples
--------
>>> 1
1
"""
    assert f1d.__doc__ == expected
    assert "(N, C, D, H, W) or (C, D, H, W), of OD, OH, OW" in of_rank(3, f2d)(f3d).__doc__
    assert "size : int or (int, int, int)" in f3d.__doc__
    assert "one axis knows nothing" in f3d.__doc__


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
