// SPDX-License-Identifier: BSD-3-Clause
//
// bands.c - a convolution most of whose taps see nothing but padding, by bands of outputs with the taps that are live
// there.
//
// Tap t of output o reads o * s - p + t * e, which lies in the image for (in - 1) / e + 1 taps of an output at most, and
// for (in - 1) / s + 1 outputs of a tap, however long the kernel and whatever the padding.  The outputs [o0, o1) see
// the taps from (p - (o1 - 1) * s) / e to (in - 1 + p - o0 * s) / e.  A kernel that is longer than the image slides over
// it from end to end: all bands but the first and the last are the same problem with other taps, and the products are
// out * in rather than out * kernel.  Swapping the roles of kernel and image would take as few, but would pack the image
// in every call, and has no place for a bias.
//
// A few taps far apart are better told from each other: outputs that see the same ones are a band.
#include "conv/parts.h"

static int64_t ceil_div(int64_t a, int64_t b) { return -fc_floor_div(-a, b); }

// The bands of an axis: outputs [low, high) see the image, from first to behind in the middle bands are alike.
typedef struct bands {
    int64_t low, high, length, count;
    int64_t alike, behind;
} bands;

// Bands begin between tiles of outputs, so that each keeps its place in its tile.
static bands bands_of(const fc_axis *a, int64_t length, int64_t tile) {
    bands b = {.length = length};
    b.low = fc_max(0, ceil_div(a->pad - (a->kernel - 1) * a->dilation, a->stride)) / tile * tile;
    b.high = fc_min(a->out, fc_floor_div(a->in - 1 + a->pad, a->stride) + 1);
    b.count = b.high > b.low ? fc_ceil_div(b.high - b.low, length) : 0;
    // Neither end of the kernel limits the taps of a band of full length.
    const int64_t first = ceil_div(a->in + a->pad - a->kernel * a->dilation, a->stride) - b.low;
    const int64_t last = ceil_div(a->pad + a->dilation, a->stride) - length - b.low;
    b.alike = fc_clamp(0, ceil_div(first, length), b.count);
    b.behind = fc_clamp(b.alike, fc_min(fc_floor_div(last, length), (b.high - b.low) / length - 1) + 1, b.count);
    return b;
}

enum { FC_BANDS_MOST = 9 }; // along an axis, where they are told apart by taps

// The first and the last tap by which an output sees the image.
static int64_t first_tap(const fc_axis *a, int64_t o) {
    return fc_max(0, ceil_div(a->pad - o * a->stride, a->dilation));
}
static int64_t last_tap(const fc_axis *a, int64_t o) {
    return fc_min(a->kernel - 1, fc_floor_div(a->in - 1 + a->pad - o * a->stride, a->dilation));
}

// Behind the outputs from `low` on that see the same taps.
static int64_t band_end(const fc_axis *a, int64_t low, int64_t high) {
    const int64_t first = first_tap(a, low), last = last_tap(a, low);
    if (first > 0) high = fc_min(high, ceil_div(a->pad - (first - 1) * a->dilation, a->stride));
    return fc_min(high, fc_floor_div(a->in - 1 + a->pad - last * a->dilation, a->stride) + 1);
}

// How many such bands there are, and the share of the products of an axis that they have.
static int64_t bands_by_taps(const fc_axis *a, double *share) {
    const bands b = bands_of(a, a->out, 1);
    int64_t count = 0, products = 0;
    for (int64_t low = b.low, end; low < b.high && count <= FC_BANDS_MOST; low = end, count++) {
        end = band_end(a, low, b.high);
        products += (end - low) * fc_max(0, last_tap(a, low) + 1 - first_tap(a, low));
    }
    *share = (double)products / ((double)a->out * (double)a->kernel);
    return count;
}

static int64_t kinds_of(const bands *b) { return b->count - fc_max(0, b->behind - b->alike - 1); }

static fc_series band_series(const fc_split *split, int axis, int64_t index) {
    const fc_axis *a = &split->whole.axis[axis];
    const bands b = bands_of(a, split->length[axis], split->tile);
    const int64_t kind = index / 4, alike = b.behind - b.alike;
    const int64_t band = alike && kind > b.alike ? kind + alike - 1 : kind;
    int64_t low = b.low + band * b.length, high = fc_min(b.high, low + b.length);
    if (split->by_taps) {
        low = b.low;
        for (int64_t i = 0; i < kind; i++) low = band_end(a, low, b.high);
        high = band_end(a, low, b.high);
    }
    int64_t tap = fc_max(0, ceil_div(a->pad - (high - 1) * a->stride, a->dilation));
    int64_t taps = fc_min(a->kernel - 1, fc_floor_div(a->in - 1 + a->pad - low * a->stride, a->dilation)) + 1 - tap;
    if (split->tile > 1) {
        tap = 0;
        taps = a->kernel;
    }
    const int64_t count = alike && kind == b.alike && !split->by_taps ? alike : 1;
    fc_series series = {.axis = *a, .count = index % 4 == 0 && taps > 0 ? count : 0, .tap = tap, .at = low};
    series.axis.out = high - low;
    series.axis.kernel = taps;
    series.axis.pad = a->pad - low * a->stride - tap * a->dilation;
    if (count > 1) {
        series.tap_step = -(b.length * a->stride / a->dilation);
        series.at_step = b.length;
    }
    return series;
}

// At most this share of the products of an axis has a factor from the image.
static double live(const fc_axis *a) {
    const double taps = (double)((a->in - 1) / a->dilation + 1) / (double)a->kernel;
    const double outputs = (double)((a->in - 1) / a->stride + 1) / (double)a->out;
    return fmin(1, fmin(taps, outputs));
}

// Bands of 2^scale times the image's length where that leaves taps out.  Whole steps of the dilation keep bands alike.
// Where outputs are computed in tiles, by all taps at once, outputs are all that is left out.
static fc_split split_of(const fc_problem *p, int64_t tile, int scale) {
    fc_split split = {.whole = *p, .sample = INT64_MAX / 2, .tile = tile, .series = band_series};
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        const int64_t unit = a->dilation / fc_gcd(a->dilation, a->stride);
        const int64_t image = fc_round_up(fc_ceil_div(a->in, a->stride), unit);
        const int whole = tile > 1 || live(a) == 1 || image >= a->out >> scale;
        split.length[i] = whole ? a->out : image << scale;
        split.positions[i] = a->out;
        split.step[i] = split.tap_step[i] = split.src_step[i] = 1;
        const bands b = bands_of(a, split.length[i], tile);
        split.kinds[i] = kinds_of(&b);
    }
    return split;
}

static fc_split split_by_taps(const fc_problem *p) {
    fc_split split = split_of(p, 1, 62);
    double share;
    split.by_taps = 1;
    for (int i = 0; i < FC_AXES; i++) split.kinds[i] = bands_by_taps(&p->axis[i], &share);
    return split;
}

// Whether it might pay.
static int few_by_taps(const fc_problem *p) {
    double share[FC_AXES];
    for (int i = 0; i < FC_AXES; i++)
        if (bands_by_taps(&p->axis[i], &share[i]) > FC_BANDS_MOST) return 0;
    return share[0] * share[1] * share[2] < 0.6;
}

static int is_whole(const fc_split *split) {
    for (int i = 0; i < FC_AXES; i++) {
        const fc_series s = band_series(split, i, 0);
        if (split->kinds[i] != 1 || s.count != 1 || s.axis.kernel < split->whole.axis[i].kernel) return 0;
        if (s.axis.out < split->positions[i]) return 0;
    }
    return 1;
}

// The bands that take least time: longer ones have fewer beginnings, and sum more of what is zero.
static fc_verdict ask_bands(const fc_request *r, fc_split *best) {
    const fc_problem *p = r->op->problem;
    const int64_t tile = r->planner->kind(r->options->algorithm)->rows;
    fc_verdict found = {.refusal = "most taps see the image", .cost = INFINITY};
    if (tile == 1 && few_by_taps(p)) {
        const fc_split split = split_by_taps(p);
        const fc_verdict v = fc_parts_ask(&split, r->planner->ask_own, r->options);
        if (!v.refusal) {
            found = v;
            *best = split;
        }
    }
    if (live(&p->axis[0]) * live(&p->axis[1]) * live(&p->axis[2]) > 0.5) return found;
    for (int scale = 0, all = 0; !all; scale++) {
        const fc_split split = split_of(p, tile, scale);
        all = 1;
        for (int i = 0; i < FC_AXES; i++) all = all && split.length[i] == p->axis[i].out;
        if (is_whole(&split)) continue;
        const fc_verdict v = fc_parts_ask(&split, r->planner->ask_own, r->options);
        if (v.refusal) continue;
        if (!found.refusal && fc_total(&v, r->options) > 1.5 * fc_total(&found, r->options)) break;
        if (!found.refusal && fc_total(&v, r->options) >= fc_total(&found, r->options)) continue;
        found = v;
        *best = split;
    }
    return found;
}

static fc_verdict ask(const fc_request *r) {
    fc_split split;
    return ask_bands(r, &split);
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    fc_split split;
    (void)ask_bands(r, &split);
    return fc_parts_layout(plan, &split, r, r->options, message);
}

const fc_kind fc_kind_bands = {
    .name = "bands",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = fc_parts_pack,
    .stages = fc_parts_stages,
    .form = fc_parts_form,
};
