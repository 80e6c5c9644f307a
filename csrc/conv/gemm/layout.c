// SPDX-License-Identifier: BSD-3-Clause
//
// layout.c - how k is cut into blocks, and where packed weights lie.
#include "conv/gemm/gemm.h"

// Weights that are packed in passing meet so many columns, or few times as many as they are bytes.
enum { FC_PASSING_COLUMNS = 256, FC_PASSING_TIMES = 1 << 28 };

int fc_gemm_over_channels(const fc_problem *p, const fc_kernels *kernels) {
    const int enough = p->out_channels * 4 >= kernels->gemm_channels.nr;
    // Rows shorter than the kernel are those of a weight gradient: its columns are packed along the kernel.
    if (p->dst.axis[2] == 1 && p->axis[2].out > 1) return enough && p->axis[2].out < p->axis[2].kernel;
    return p->dst.channel == 1 || enough;
}

const fc_gemm_kernel *fc_gemm_over_pixels(const fc_problem *p, const fc_kernels *kernels, int64_t few) {
    return p->out_channels <= few ? &kernels->gemm_few : &kernels->gemm_pixels;
}

// A vector of each segment at a time, in the time of one more where the last is not whole, and another three for adding the
// lanes.
static int64_t along_vectors(const fc_kernels *k, int64_t segments, int64_t steps) {
    return segments * (fc_ceil_div(steps, k->vl) + (steps % k->vl > 0)) + 3;
}

// The time of a multiplication by vectors along k, each of which is loaded for it, in such as are broadcast to: the fewer taps
// share them, the more of the rows come from L2 anew for every output channel.
static double along_time(const fc_problem *p, const fc_kernels *k, const fc_machine *machine) {
    if (fc_gemm_halves(k, machine)) return fmin(1.75, 1.15 + 3.0 / (double)fc_taps(p));
    return fc_taps(p) > 1 ? 1.0 : 1.5;
}

int fc_gemm_along(const fc_problem *p, const fc_kernels *k, const fc_machine *machine, int64_t segments,
                  int64_t steps) {
    if (p->src.channel != 1 || p->in_channels == 1) return 0;
    const int64_t lanes = fc_round_up(p->out_channels, fc_gemm_halves(k, machine) ? k->vl / 2 : k->vl);
    const double along = along_time(p, k, machine) * (double)(p->out_channels * along_vectors(k, segments, steps));
    return along * (double)k->vl < (double)(segments * steps * lanes);
}

double fc_gemm_along_cost(const fc_request *r, int64_t segments, int64_t steps) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const double sums = (double)(p->groups * p->batch * p->out_channels) * (double)fc_positions(p);
    const double time = along_time(p, k, &r->options->machine);
    const double macs = sums * time * (double)(along_vectors(k, segments, steps) * k->vl);
    return c->fixed + fc_cost_macs(macs, k, c) + 0.5 * c->tile * sums / (double)k->gemm_along.mr;
}

double fc_gemm_read_again(const fc_request *r, int64_t plane) {
    const fc_problem *p = r->op->problem;
    const fc_gemm_kernel *g = &r->kernels->gemm_pixels;
    const int64_t line = 64, element = r->kernels->element;
    const int64_t bytes = fc_round_up(g->nr * element, line) + (plane * element % line ? line : 0);
    if (4 * bytes * fc_min(p->in_channels, FC_BLOCK_K) < 3 * r->options->machine.l1 || p->out_channels <= g->mr)
        return 1;
    const double step = fc_cost_macs((double)(g->mr * g->nr), r->kernels, &r->options->costs);
    return 1 + 0.3 * fmax(0.0, (double)bytes * r->options->costs.weight_l2 / step - 0.6);
}

int fc_gemm_sums_alike(const fc_gemm *a, const fc_gemm *b) {
    const int alike = a->kernel == b->kernel || !(a->over_channels || b->over_channels); // of few outputs and of many
    return alike && a->over_channels == b->over_channels && a->depth == b->depth && a->block == b->block &&
           a->span == b->span && a->order == b->order;
}

// How many flat output positions in a row lie side by side in dst.
static int64_t contiguous(const fc_problem *p) {
    int64_t count = 1;
    // Axes from the innermost outwards join as long as each continues where the last one ends.
    for (int i = FC_AXES - 1; i >= -1; i--) {
        const int64_t stride = i < 0 ? p->dst.outer : p->dst.axis[i], size = i < 0 ? p->batch : p->axis[i].out;
        if (i == FC_AXES - 1 && stride != 1) return 1;
        if (size != 1 && stride != count) break;
        count *= size;
    }
    return count;
}

// Whether a task had better pack a tile of weights when it comes to it.  All of them packed are waited for, go to memory and
// back where they are large, and half of them from the cache of one core into another's: 512 -> 2048 channels of 128 pixels
// took 1.5 times as long on two threads, 256 -> 256 twice as long.  But each strip of columns packs them anew.
static int in_passing(const fc_plan *plan, const fc_gemm *g) {
    const fc_problem *p = &plan->problem;
    const int lines = fc_taps(p) == 1 || (g->order == 1 && fc_weights_adjoin(p));
    const int64_t bytes = g->depth * fc_gemm_packed_channels(plan) * fc_bytes(g->kernel->types.weight);
    return lines && bytes > 0 && g->pixels <= fc_max(FC_PASSING_COLUMNS, FC_PASSING_TIMES / bytes);
}

fc_status fc_gemm_layout(fc_plan *plan, const fc_gemm_wish *wish) {
    const fc_problem *p = &plan->problem;
    const fc_gemm_kernel *k = wish->kernel ? wish->kernel : fc_gemm_kernel_of(plan->kernels, wish->over_channels);
    const size_t shape = fc_align(sizeof(fc_gemm)), table = shape + fc_align(wish->shape_bytes);
    char *state = calloc(1, table + sizeof(int64_t) * (size_t)wish->table);
    if (!state) return FC_NO_MEMORY;
    fc_gemm *g = plan->state = state;
    if (wish->shape_bytes) memcpy(state + shape, wish->shape, wish->shape_bytes);
    g->shape = state + shape;
    g->table = (int64_t *)(state + table);
    g->source = wish->source;
    g->kernel = k;
    g->over_channels = wish->over_channels;
    g->at_lines = wish->at_lines;
    g->order = wish->order;
    g->load = wish->load;
    g->depth = p->in_channels * fc_taps(p);
    const int64_t block = fc_ceil_div(g->depth, fc_max(1, fc_ceil_div(g->depth, FC_BLOCK_K)));
    g->block = wish->block ? wish->block : fc_round_up(block, k->kr);
    g->span = wish->span ? wish->span : fc_max(1, g->depth);
    g->blocks = fc_max(1, g->depth / g->span * fc_ceil_div(g->span, fc_max(1, g->block)));
    g->out_tiles = fc_ceil_div(p->out_channels, g->over_channels ? k->nr : k->mr);
    g->out_tile = g->over_channels ? k->nr : fc_ceil_div(p->out_channels, g->out_tiles);
    g->pixels = p->batch * fc_positions(p);
    g->contiguous = g->over_channels ? 1 : contiguous(p);
    g->segments = g->over_channels ? wish->table : 0;
    const int64_t out = fc_gemm_packed_channels(plan);
    // Over pixels weights are read one by one, and need stand nowhere in particular.
    g->group_packed = g->over_channels ? fc_round_up(g->depth * out, FC_ALIGN) : g->depth * out;
    g->in_passing = wish->borrows && in_passing(plan, g);
    const int64_t packing[FC_CHOICES] = {g->over_channels, g->order, g->block, g->span, g->out_tile, g->out_tiles};
    memcpy(plan->packing, packing, sizeof packing);
    const size_t weights = (size_t)(p->groups * g->group_packed * fc_bytes(k->types.weight));
    plan->packed_bytes = fc_gemm_bias_bytes(plan) + (g->in_passing ? sizeof(void *) : weights);
    return FC_OK;
}

int64_t fc_gemm_packed_channels(const fc_plan *plan) {
    const fc_gemm *g = fc_gemm_of(plan);
    return g->over_channels ? g->out_tiles * g->kernel->nr : plan->problem.out_channels;
}

size_t fc_gemm_bias_bytes(const fc_plan *plan) {
    const int64_t element = fc_bytes(fc_gemm_of(plan)->kernel->types.destination);
    const int64_t bytes = plan->problem.groups * fc_gemm_packed_channels(plan) * element;
    return fc_gemm_of(plan)->over_channels ? fc_align((size_t)bytes) : (size_t)fc_round_up(bytes, 8);
}

int64_t fc_gemm_blocks_per_span(const fc_gemm *g) { return fc_max(1, g->blocks / fc_max(1, g->depth / g->span)); }

void fc_gemm_block(const fc_gemm *g, int64_t block, int64_t *k0, int64_t *k1) {
    const int64_t per_span = fc_gemm_blocks_per_span(g), start = block / per_span * g->span;
    *k0 = start + block % per_span * g->block;
    *k1 = fc_min(start + g->span, *k0 + g->block);
}

const char *fc_gemm_form(const fc_plan *plan) {
    const fc_gemm *g = fc_gemm_of(plan);
    if (g->kernel == &plan->kernels->gemm_along) return "along the sums";
    return g->over_channels ? "over channels" : "over pixels";
}
