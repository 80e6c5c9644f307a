# SPDX-License-Identifier: BSD-3-Clause
"""The demo as a page to read: one HTML file beside its pictures, without anything from elsewhere."""

from __future__ import annotations

from html import escape

from fastconv._names import only
from fastconv.bench.terminal import figure
from fastconv.bench.web import page, table
from fastconv.demo.results import Results, percent

__all__ = ["GRAPH", "html"]
__dir__ = only(__all__)

#: The picture of the compiled network.
GRAPH = "vgg_compiled.svg"


def html(results: Results, epochs: int, learnt: int) -> str:
    """The page.

    Parameters
    ----------
    results : Results
    epochs : int
        How often the networks saw each image.
    learnt : int
        Number of images they learnt from.

    Returns
    -------
    str
    """
    return page(
        "fastconv demo",
        _head(results),
        _digits(results, epochs, learnt),
        _vgg(results),
        _compiled(results),
        _run(results),
    )


def _head(results: Results) -> str:
    ours, other, run = results.convnet, results.dense, results.vgg
    over_loops, over_blas = results.convolution_speedups()
    first = next(iter(run.milliseconds))
    cards = (
        (percent(ours.accuracy), f"of {results.held_out} held-out handwritten digits read by a convolutional network"),
        (
            f"{other.parameters / ours.parameters:.1f}×",
            f"fewer weights ({ours.parameters:,}) than the fully connected network beside it ({other.parameters:,}), "
            f"which reads {percent(other.accuracy)}",
        ),
        (f"{figure(run.milliseconds[first])} ms", f"for {run.network} on a photograph, the sum of its layers"),
        (
            f"{figure(over_loops)}×",
            f"faster than NumPy's loops on the convolutions, and {figure(over_blas)}× faster than NumPy with BLAS",
        ),
    )
    shown = "".join(f"<div><strong>{escape(big)}</strong><span>{escape(small)}</span></div>" for big, small in cards)
    machine = results.machine
    return f"""
<header>
<h1>fastconv demo</h1>
<p class="lead">Two networks learn to read real handwriting, and {escape(run.network)} looks at two real photographs.
Everything was computed on this machine's processor ({escape(str(machine["cpu"]))}, {machine["threads"]} threads,
{escape(str(machine["isa"]))}) in {results.seconds:.0f} seconds.</p>
<div class="figures">{shown}</div>
</header>
"""


def _digits(results: Results, epochs: int, learnt: int) -> str:
    ours, other = results.convnet, results.dense
    outcome = (
        "and still reads fewer of the digits that neither has seen before"
        if ours.accuracy > other.accuracy
        else "and this time reads no fewer of the digits that neither has seen before"
    )
    return f"""
<section>
<h2>Reading handwriting</h2>
<p>A <em>convolution</em> slides a small grid of weights, a kernel, over the image. At every place the pixels under the
kernel are multiplied by its weights and summed: one number, large where the image looks like the kernel. All places
together make a map of where that feature is. Nobody designs the weights; they are learnt.</p>
<p><em>Pooling</em> keeps the largest of every 2×2 numbers. The maps shrink, and it no longer matters where exactly
a stroke lies. After two rounds of both, <em>fully connected</em> layers weigh what was found and decide on a digit.</p>
<p>As the same few weights serve every place in the image, a convolutional network gets by with far fewer of them. The
fully connected network beside it has {other.parameters / ours.parameters:.1f} times as many, was trained in the same
way on the same images, {outcome}.</p>
{table(results.digits_table())}
<p class="notes">{learnt:,} digits to learn from, seen {epochs} times, each time moved by up to two pixels;
{results.held_out} held out, the same whatever the seed. The networks are as they were after the last epoch.</p>

<h3>How they learnt</h3>
{
        _picture(
            "training",
            "Training loss and held-out accuracy of both networks by epoch",
            "Left, how far both are from the right answers on the images they learn from; lower is better. Right, how "
            "many of the held-out digits they read.",
        )
    }

<h3>With enough training, ConvNets learn these filters</h3>
{
        _picture(
            "filters",
            "The kernels of the first layer before and after training",
            "The kernels of the first layer. Where they are orange, ink counts for the feature, where purple, against "
            "it. They began as random numbers; training has made some of them clear detectors of strokes and edges, a "
            "bar of one sign beside a bar of the other. Each kernel is scaled to its own largest weight.",
        )
    }

<h3>One digit on its way through the network</h3>
{
        _picture(
            "feature_maps",
            "Feature maps of one held-out digit after every layer",
            "A held-out digit. Each kernel answers to other parts of it; pooling halves the maps; the last layer's "
            "scores name the digit. Each map is scaled to its own largest number, dark is high.",
        )
    }

<h3>What is still misread</h3>
{
        _picture(
            "confusion",
            "Confusion matrix of the convolutional network and the digits it misread",
            "Every held-out digit stands in the row of what was written and the column of what was read. Right: the "
            "images behind the errors, as small as the network saw them.",
        )
    }
</section>
"""


def _vgg(results: Results) -> str:
    run = results.vgg
    convolutions = sum(layer.kind == "convolution" for layer in run.layers)
    connected = sum(layer.kind == "fully connected" for layer in run.layers)
    photographs = " and ".join(f"<code>{escape(name)}</code>" for name in run.photographs)
    return f"""
<section>
<h2>{escape(run.network)} on real photographs</h2>
<p>{escape(run.network)} is a network of {convolutions} convolutions, {connected} fully connected layers and
{run.parameters / 1e6:.3g} million weights. Here it gets {photographs}, which come with scikit-learn. Trained weights
are far too large to come with this demo, so the weights are <strong>random</strong>, from a fixed seed and, for the
convolutions, of He's distribution. The work is that of the trained network and takes the same time, but its scores
would mean nothing, so no labels are shown.</p>

<h3>What the layers see</h3>
{
        _picture(
            "vgg_maps",
            "Both photographs and four feature maps each after every stage",
            "The photographs, and four of the maps after the first convolution and after each pooling. Even random "
            "kernels answer to edges and colours; from stage to stage there are more maps, and each is smaller.",
        )
    }

<h3>Layer by layer, beside NumPy</h3>
{
        _picture(
            "vgg_layers",
            "Milliseconds of every layer in NumPy's two forms and in fastconv",
            "Shorter is better, and each line is ten times the one before. Beside NumPy's bars stands how many times "
            "faster fastconv is. The fully connected layers read each weight just once: memory, not arithmetic, sets "
            "their pace.",
        )
    }
{table(results.vgg_table())}
</section>
"""


def _compiled(results: Results) -> str:
    run, one = results.vgg, results.compiled
    alike = (
        "the very same scores" if one.difference == 0 else f"the same scores up to {one.difference:.1e} of the largest"
    )
    return f"""
<section>
<h2>{escape(run.network)} as one program</h2>
<p>So far each layer ran by itself. <code>fastconv.compile</code> looks at the network as a whole: activations become
part of the layers before them, weights are packed, memory is planned, the order in which numbers lie is chosen once,
and a call runs all steps without returning to Python. It took {one.compile_seconds:.1f} seconds, and gives
{alike}.</p>
{table(results.compiled_table())}
<h3>Where the time goes</h3>
<figure>
<img class="graph" src="{GRAPH}" alt="The steps of the compiled network, coloured by their share of the time">
<figcaption>The steps on <code>{escape(one.photograph)}</code>, from the photograph at the top to the scores at the
bottom; the darker, the more of the time. <code>fastconv profile vgg16 --html page.html</code> draws it for other
networks, and <code>net.profile(x)</code> for yours.</figcaption>
</figure>
</section>
"""


def _run(results: Results) -> str:
    checks = "".join(
        f'<li class="{"kept" if check.kept else "broken"}">{escape(check.promise)}: {escape(check.finding)}</li>'
        for check in results.checks
    )
    machine = results.machine
    facts = {
        "date": results.date,
        "processor": f"{machine['cpu']}, {machine['isa']}, {machine['threads']} threads",
        "FMA peak": f"{results.vgg.peak:.0f} GFLOP/s, float32",
        "fastconv": f"{machine['fastconv']}, {machine['compiler']}",
        "Python": f"{machine['python']} with NumPy {machine['numpy']} ({machine['blas']})",
        "seed": str(results.seed),
    }
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"""
<section>
<h2>This run</h2>
<ul class="checks">{checks}</ul>
<dl>{shown}</dl>
<p>Every figure is in <a href="results.json">results.json</a>. To see it again:
<code>fastconv demo --seed {results.seed}</code>. More layers, layouts and algorithms: <code>fastconv bench</code>.</p>
</section>
"""


def _picture(name: str, alt: str, caption: str) -> str:
    return f"""<figure>
<picture>
<source srcset="dark/{name}.png" media="(prefers-color-scheme: dark)">
<img src="{name}.png" alt="{escape(alt)}">
</picture>
<figcaption>{escape(caption)}</figcaption>
</figure>"""
