// SPDX-License-Identifier: BSD-3-Clause
//
// cost.c - the arithmetic behind `auto`: seconds on a nominal core, of which only ratios matter.  The number of threads
// does not enter, so that the choice, and with it every bit of the result, is the same for any number of them.
#include "algo/plan.h"

// A nominal core: float32 multiply-adds per second at full tiles, by ISA.
static double mac_rate(const fc_kernels *k) {
    static const double rate[FC_ISAS] = {[FC_SCALAR] = 4e9, [FC_AVX2] = 60e9, [FC_AVX512] = 110e9, [FC_NEON] = 25e9};
    return rate[k->isa] * (k->dtype == FC_F32 || k->vl == 1 ? 1.0 : 0.5);
}

double fc_cost_macs(double macs, const fc_kernels *k) { return macs / mac_rate(k); }

double fc_cost_runs(double elements, int64_t run, const fc_kernels *k) {
    const double per_run = 3e-9, per_vector = 0.6e-9;
    const double runs = elements / (double)fc_max(1, run);
    return runs * (per_run + per_vector * (double)fc_ceil_div(fc_max(1, run), k->vl));
}

double fc_cost_weights(double bytes) {
    const double l2 = 0.5e6, l3 = 20e6;
    return bytes / (bytes < l2 ? 60e9 : bytes < l3 ? 45e9 : 16e9);
}

double fc_cost_fixed(void) { return 1e-6; }

double fc_cost_gemm(const fc_problem *p, const fc_kernels *k, double copy_seconds) {
    const int channels_form = fc_gemm_channels_form(p, k);
    const int64_t pixels = p->batch * fc_positions(p);
    const int64_t rows = channels_form ? pixels : p->out_channels, lanes = channels_form ? p->out_channels : pixels;
    const double used = (double)fc_max(1, lanes) / (double)fc_max(1, fc_round_up(lanes, k->nr));
    // A tile of m rows takes the time of at least four: B has to be loaded and the chains of additions are serial.
    const double m = (double)fc_max(1, rows) / (double)fc_max(1, fc_ceil_div(rows, k->mr));
    const double rate = used * m / fmax(m, 4.0);
    const double weights = (double)(p->groups * p->in_channels * p->out_channels * fc_taps(p) * k->element);
    // Small groups have many tiles of little depth, where finding a tile and storing it is most of the work.
    const double tiles = (double)p->groups * (double)fc_ceil_div(rows, k->mr) * (double)fc_ceil_div(lanes, k->nr);
    // Weights are asked for ahead, so that they and the multiplications wait for the slower of the two.
    return fc_cost_fixed() + fmax(fc_cost_macs(fc_macs(p), k) / rate, fc_cost_weights(weights)) + 100e-9 * tiles +
           copy_seconds;
}
