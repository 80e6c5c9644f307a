// SPDX-License-Identifier: BSD-3-Clause
//
// cost.c - the arithmetic behind `auto`: seconds of one thread, of which only ratios matter.  The number of threads
// does not enter, so that the choice, and with it every bit of the result, is the same for any number of them.
#include "core/plan.h"

// A nominal core: measured on Zen 4 and Zen 5 (avx2, avx512) and estimated for the rest.  `fastconv tune` measures the
// constants of the machine at hand and hands them in by fc_options.
fc_costs fc_costs_default(const fc_machine *machine) {
    static const double macs_per_second[FC_ISAS] = {
        [FC_SCALAR] = 4e9, [FC_AVX2] = 60e9, [FC_AVX512] = 110e9, [FC_NEON] = 25e9};
    fc_costs costs = {
        .mac = 1 / macs_per_second[machine->isa],
        .weight_l2 = 1 / 60e9,
        .weight_l3 = 1 / 45e9,
        .weight_far = 1 / 12e9, // where others read, too: alone one has 23
        .copied_run = 3e-9,
        .copied = 0.6e-9,
        .tile = 100e-9,
        .row_unit = 30e-9,
        .product = 40e-9,
        .transform = 1.6e-9,
        .staged = 1 / 30e9,
        .depthwise = 0.3e-9,
        .reference = 3e-9,
        .pack = 0.2e-9,
        .pack_point = 0.35e-9,
        .fixed = 1e-6,
    };
    if (machine->in_halves) { // Zen 4
        costs.mac = 1 / 50e9;
        costs.copied = 1e-9;
        costs.tile = 36e-9;
        costs.depthwise = 0.6e-9;
        costs.staged = 1 / 45e9;
    }
    if (machine->isa == FC_AVX2) { // a tile has a fifth of the outputs of one by AVX-512
        costs.tile = 45e-9;
        costs.product = 15e-9;
    }
    return costs;
}

const char *const fc_cost_names[] = {
#define FC_COST(name) #name,
    FC_COSTS(FC_COST)
#undef FC_COST
        NULL,
};

double fc_cost_macs(double macs, const fc_kernels *k, const fc_costs *c) {
    return macs * c->mac * (k->dtype == FC_F32 || k->vl == 1 ? 1.0 : 2.0);
}

// A last tile of one vector takes two thirds of the time of a whole one; where vectors are computed in halves, it takes
// little more than those that are there, and over channels than the halves that are.
double fc_cost_lanes(int64_t columns, const fc_gemm_kernel *gemm, const fc_kernels *k, const fc_machine *m) {
    static const double of_halves[] = {0.0, 0.35, 0.53, 0.83, 1.0};
    const int64_t rest = columns % gemm->nr;
    const int halves = fc_gemm_halves(k, m);
    double share = rest == 0 ? 0.0 : rest > k->vl ? 1.0 : halves ? of_halves[2] : 0.65;
    if (halves && gemm == &k->gemm_channels) share = of_halves[fc_ceil_div(rest, k->vl / 2)];
    return (double)(columns - rest) + (double)gemm->nr * share;
}

double fc_cost_runs(double elements, int64_t run, const fc_kernels *k, const fc_costs *c) {
    const double runs = elements / (double)fc_max(1, run);
    return runs * (c->copied_run + c->copied * (double)fc_ceil_div(fc_max(1, run), k->vl));
}

double fc_cost_elements(double elements, const fc_costs *c) { return elements * 0.5 * c->copied; }

double fc_cost_turned(double vectors, const fc_costs *c) { return vectors * 3 * c->copied; }

double fc_cost_apart(const fc_view *view) {
    enum { FC_LINE = 16 }; // floats of a cache line
    const int64_t step = llabs(view->axis[2]);
    return step == 1 ? 0 : fmin(1, (double)step / FC_LINE);
}

// Half of the second level, and 0.6 of the third, are what others leave of them.
static double own_l3(const fc_options *o) { return 0.6 * (double)o->machine.l3; }

// What goes round in more than the third level finds a part of itself there.
double fc_cost_weights(double bytes, const fc_options *o) {
    const double l2 = 0.48 * (double)o->machine.l2, near = fmin(bytes, own_l3(o));
    if (bytes < l2) return bytes * o->costs.weight_l2;
    return near * o->costs.weight_l3 + (bytes - near) * o->costs.weight_far;
}

double fc_cost_images(double bytes, const fc_options *o) { return bytes > own_l3(o) ? bytes * o->costs.weight_far : 0; }

double fc_cost_beyond(double bytes, const fc_options *o) { return fmax(0.0, bytes - own_l3(o)) * o->costs.weight_far; }

double fc_cost_aliases(const fc_machine *m, int64_t bytes, int64_t rows) {
    const int64_t period = m->l1 / m->l1_ways, lines = period / fc_clamp(64, bytes & -bytes, period);
    const double each = (double)fc_ceil_div(rows, fc_max(1, lines)) / (double)m->l1_ways;
    return 1 + 0.4 * fmax(0.0, each - 1); // L2 is not far: 1.2 to 1.4 for 14 rows in 8 ways
}

double fc_cost_gemm(const fc_problem *p, const fc_kernels *k, const fc_options *o, int over_channels,
                    double copy_seconds) {
    const fc_costs *c = &o->costs;
    const fc_gemm_kernel *g = fc_gemm_kernel_of(k, over_channels);
    const int64_t pixels = p->batch * fc_positions(p);
    const int64_t rows = over_channels ? pixels : p->out_channels, lanes = over_channels ? p->out_channels : pixels;
    const double used = lanes ? (double)lanes / fc_cost_lanes(lanes, g, k, &o->machine) : 1.0;
    // A tile of m rows takes the time of at least four: B has to be loaded and the chains of additions are serial.
    const double m = (double)fc_max(1, rows) / (double)fc_max(1, fc_ceil_div(rows, g->mr));
    const double rate = used * m / fmax(m, 4.0);
    const double weights = (double)(p->groups * fc_weights(p) * fc_bytes(p->types.weight));
    // Small groups have many tiles of little depth, where finding a tile and storing it is most of the work.
    const double tiles = (double)p->groups * (double)fc_ceil_div(rows, g->mr) * (double)fc_ceil_div(lanes, g->nr);
    // Weights are asked for ahead, so that they and the multiplications wait for the slower of the two.
    return c->fixed + fmax(fc_cost_macs(fc_macs(p), k, c) / rate, fc_cost_weights(weights, o)) + c->tile * tiles +
           copy_seconds;
}

double fc_cost_packing(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    return (double)p->groups * (double)p->in_channels * (double)p->out_channels * (double)fc_taps(p) *
           r->options->costs.pack;
}
