// SPDX-License-Identifier: BSD-3-Clause
//
// weight_small.c - the weight gradient of batches of small images (conv/small.c), tap by tap, over the outputs of all images that
// see a pixel by it:
//
//   d_wei[o][c][t] = sum over positions that see the image by t, and images, of
//                    d_dst[position][image][o] * X[position + t][image][c]
//
// As a product over all pixels and taps (weight_product.c) most of it would be padding where images are a pixel or two wide.  X
// is a copy with channels last; d_dst is copied for each tap without the positions that do not see the image.  Sums of a
// tile of output channels and a block of input channels are stored while they are in L1.
#include "conv/small.h"
#include "conv/winograd.h" // fc_odd_lines
#include "grad/weight_taps.h"

enum { FC_SMALL_DEPTH = 256 }; // pixels of a block of a product: the error of sums

// The state of a plan.
typedef struct small_grad {
    const fc_gemm_kernel *gemm; // over pixels: output channels for rows, input channels for pixels
    int64_t pixels, pitch;      // of an input image; of the copy, from image to image of a pixel
    int64_t pairs;              // of an output position and a tap that see the image
    int64_t out_tile, out_tiles;
    int64_t parts; // blocks of nr input channels
} small_grad;

static const small_grad *grad_of(const fc_plan *plan) { return plan->state; }

static small_grad shape_of(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    small_grad s = {.gemm = &r->kernels->gemm_pixels, .pairs = fc_small_pairs(p)};
    s.pixels = p->axis[0].in * p->axis[1].in * p->axis[2].in;
    s.parts = fc_ceil_div(p->in_channels, s.gemm->nr);
    s.pitch = fc_odd_lines(s.parts * s.gemm->nr); // the last block is read as whole vectors
    s.out_tiles = fc_ceil_div(p->out_channels, s.gemm->mr);
    s.out_tile = fc_ceil_div(p->out_channels, s.out_tiles);
    return s;
}

static fc_verdict ask(const fc_request *r) {
    fc_verdict v = {.refusal = fc_small_refuses(r), .cost = INFINITY};
    if (v.refusal) return v;
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const small_grad s = shape_of(r);
    const double groups = (double)p->groups, batch = (double)p->batch, pairs = (double)s.pairs;
    const double m = (double)p->out_channels / (double)s.out_tiles;
    const double lanes = fc_cost_lanes(p->in_channels, s.gemm, k, &r->options->machine);
    const double macs = batch * pairs * (double)p->out_channels * lanes * fmax(m, 4.0) / m;
    const double products = (double)(s.out_tiles * s.parts * fc_taps(p));
    const double copied = batch * (double)(s.pixels * p->in_channels), out = batch * pairs * (double)p->out_channels;
    const double stored = (double)fc_weights(p) * (c->staged * (double)k->element + 2 * c->copied / (double)k->vl) +
                          (double)(p->out_channels * s.parts) * c->row_unit;
    v.cost = 2 * c->fixed +
             groups * (fc_cost_macs(macs, k, c) + c->product * products + stored + fc_cost_elements(copied + out, c));
    return v;
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    small_grad *s = plan->state = malloc(sizeof *s);
    if (!s) return FC_NO_MEMORY;
    *s = shape_of(r);
    plan->id = FC_DIRECT;
    return FC_OK;
}

// ----------------------------------------------------------------------------------------------------------- stages

// How the work is cut: blocks of input channels are shared out where output channels are few.  In a thread's scratch: d_dst
// of a tile, the same once more for each tap, where the rows of X to it lie, sums [tap][m][nr], and zeros for a bias.
typedef struct grad_share {
    int64_t part_shares;
    size_t taps, offsets, sums, zeros, bytes;
} grad_share;

static int64_t copy_elements(const fc_plan *plan) {
    const small_grad *s = grad_of(plan);
    return s->pixels * plan->problem.batch * s->pitch;
}

static grad_share share_of(const fc_plan *plan, int threads) {
    const fc_problem *p = &plan->problem;
    const small_grad *s = grad_of(plan);
    const int64_t element = plan->kernels->element, tasks = p->groups * s->out_tiles, row = s->out_tile * element;
    grad_share share = {.part_shares = fc_clamp(1, fc_ceil_div(threads > 1 ? 4 * threads : 1, tasks), s->parts)};
    share.taps = fc_align((size_t)(fc_positions(p) * p->batch * row));
    share.offsets = share.taps + fc_align((size_t)(s->pairs * p->batch * row));
    share.sums = share.offsets + fc_align((size_t)(s->pairs * p->batch) * sizeof(int64_t));
    share.zeros = share.sums + fc_align((size_t)(fc_taps(p) * s->out_tile * s->gemm->nr * element));
    share.bytes = share.zeros + fc_align((size_t)(FC_MAX_MR * element));
    return share;
}

// X of an image of a group.
static void copy_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const small_grad *s = grad_of(plan);
    const int64_t element = plan->kernels->element, image = task % p->batch, group = task / p->batch;
    const int64_t size[] = {p->axis[0].in, p->axis[1].in, p->axis[2].in};
    const char *src = fc_operand(call, stage->at.src);
    char *copy = fc_operand(call, stage->at.shared);
    fc_small_copy(plan->kernels, &p->src, size, p->in_channels,
                  src + (group * p->src.group + image * p->src.outer) * element,
                  copy + (group * copy_elements(plan) + image * s->pitch) * element, p->batch * s->pitch);
}

// A tile of output channels, with its scratch.
typedef struct grad_task {
    const fc_plan *plan;
    const char *x; // of the group
    char *d, *taps, *sums, *zeros;
    int64_t *offsets;
    int64_t m;
} grad_task;

// d_dst and the places in X of the pixels that count for a tap, behind those of the taps before; returns how many.
static int64_t gather(const grad_task *t, const int64_t at[FC_AXES], int64_t before) {
    const fc_problem *p = &t->plan->problem;
    const small_grad *s = grad_of(t->plan);
    const fc_axis *a = p->axis;
    const int64_t element = t->plan->kernels->element, row = p->batch * t->m * element;
    int64_t first[FC_AXES], end[FC_AXES], count = before;
    for (int i = 0; i < FC_AXES; i++) first[i] = fc_small_seen(&a[i], at[i], &end[i]);
    for (int64_t d = first[0]; d < end[0]; d++)
        for (int64_t h = first[1]; h < end[1]; h++)
            for (int64_t w = first[2]; w < end[2]; w++) {
                const int64_t z = fc_small_input(&a[0], at[0], d), y = fc_small_input(&a[1], at[1], h);
                const int64_t x = fc_small_input(&a[2], at[2], w);
                const int64_t position = (d * a[1].out + h) * a[2].out + w;
                memcpy(t->taps + count * t->m * element, t->d + position * row, (size_t)row);
                const int64_t pixel = ((z * a[1].in + y) * a[2].in + x) * p->batch;
                for (int64_t image = 0; image < p->batch; image++) t->offsets[count++] = (pixel + image) * s->pitch;
            }
    return count - before;
}

// Sums of all taps of a block of input channels.
static void multiply(const grad_task *t, int64_t channel, int64_t channels, const int64_t *depths) {
    const small_grad *s = grad_of(t->plan);
    const int64_t element = t->plan->kernels->element, nr = s->gemm->nr, taps = fc_taps(&t->plan->problem);
    int64_t row_offset[FC_MAX_MR];
    for (int64_t i = 0; i < t->m; i++) row_offset[i] = i * nr;
    const fc_run run = {0, channels, 0};
    fc_gemm_tile tile = {
        .m = t->m,
        .a_row = t->m,
        .columns = channels,
        .b = t->x + channel * element,
        .runs = &run,
        .run_count = 1,
        .column_stride = 1,
        .row_offset = row_offset,
        .bias = t->zeros,
        .low = -INFINITY,
        .high = INFINITY,
    };
    for (int64_t tap = 0, before = 0; tap < taps; before += depths[tap++]) {
        tile.dst = tile.sums = t->sums + tap * t->m * nr * element;
        if (depths[tap] == 0) memset(tile.dst, 0, (size_t)(t->m * nr * element));
        const int64_t blocks = fc_ceil_div(depths[tap], FC_SMALL_DEPTH);
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t k0 = before + fc_share(depths[tap], block, blocks);
            tile.depth = before + fc_share(depths[tap], block + 1, blocks) - k0;
            tile.a = tile.ahead = t->taps + k0 * t->m * element;
            tile.b_offset = t->offsets + k0;
            tile.first = block == 0;
            tile.last = block + 1 == blocks;
            s->gemm->run(&tile);
        }
    }
}

static void store(const grad_task *t, int64_t channel, int64_t channels, char *d_wei) {
    const fc_problem *p = &t->plan->problem;
    const int64_t element = t->plan->kernels->element, nr = grad_of(t->plan)->gemm->nr, step = t->m * nr;
    const fc_axis *a = p->axis;
    fc_tap_box box = {
        .channel = channel,
        .channels = channels,
        .count = {a[0].kernel, a[1].kernel, a[2].kernel},
        .step = {a[1].kernel * a[2].kernel * step, a[2].kernel * step, step},
    };
    for (int64_t i = 0; i < t->m; i++) {
        box.sums = t->sums + i * nr * element;
        fc_store_taps(t->plan->kernels, p, &box, d_wei + i * p->wei.outer * element);
    }
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const small_grad *s = grad_of(plan);
    const grad_share *share = stage->context;
    const int64_t element = plan->kernels->element, nr = s->gemm->nr;
    const int64_t in = fc_digit(&index, share->part_shares), o = fc_digit(&index, s->out_tiles), group = index;
    char *own = fc_own_scratch(call, thread);
    grad_task t = {
        .plan = plan,
        .x = (const char *)fc_operand(call, stage->at.shared) + group * copy_elements(plan) * element,
        .d = own,
        .taps = own + share->taps,
        .sums = own + share->sums,
        .zeros = own + share->zeros,
        .offsets = (int64_t *)(own + share->offsets),
        .m = fc_min(s->out_tile, p->out_channels - o * s->out_tile),
    };
    memset(t.zeros, 0, (size_t)(FC_MAX_MR * element));
    const char *d_dst = (const char *)fc_operand(call, stage->at.wei) +
                        (group * p->dst.group + o * s->out_tile * p->dst.channel) * element;
    const int64_t size[] = {p->axis[0].out, p->axis[1].out, p->axis[2].out};
    for (int64_t image = 0; image < p->batch; image++)
        fc_small_copy(plan->kernels, &p->dst, size, t.m, d_dst + image * p->dst.outer * element,
                      t.d + image * t.m * element, p->batch * t.m);
    int64_t depths[FC_SMALL_KERNEL], tap = 0, before = 0, at[FC_AXES];
    for (at[0] = 0; at[0] < p->axis[0].kernel; at[0]++)
        for (at[1] = 0; at[1] < p->axis[1].kernel; at[1]++)
            for (at[2] = 0; at[2] < p->axis[2].kernel; at[2]++) {
                depths[tap] = gather(&t, at, before);
                before += depths[tap++];
            }
    char *d_wei =
        (char *)fc_operand(call, stage->at.dst) + (group * p->wei.group + o * s->out_tile * p->wei.outer) * element;
    const int64_t end = (in + 1) * s->parts / share->part_shares;
    for (int64_t part = in * s->parts / share->part_shares; part < end && !fc_must_stop(); part++) {
        const int64_t channels = fc_min(nr, p->in_channels - part * nr);
        multiply(&t, part * nr, channels, depths);
        store(&t, part * nr, channels, d_wei);
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    const small_grad *s = grad_of(plan);
    const grad_share share = share_of(plan, threads);
    fc_list_scratch(list, (size_t)(p->groups * copy_elements(plan) * plan->kernels->element), share.bytes);
    fc_list_stage(list, plan, copy_task, p->groups * p->batch, NULL);
    const void *context = fc_list_keep(list, &share, sizeof share);
    fc_list_stage(list, plan, task, p->groups * s->out_tiles * share.part_shares, context);
}

static const char *form(const fc_plan *plan) {
    (void)plan;
    return "tap by tap";
}

const fc_kind fc_kind_weight_small = {
    .name = "small",
    .traits = FC_SERVES_WEIGHT | FC_BY_PARTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .stages = stages,
    .form = form,
};
