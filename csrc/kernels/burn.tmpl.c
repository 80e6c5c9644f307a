// SPDX-License-Identifier: BSD-3-Clause
//
// The ceiling that every "share of peak" is measured against: as many independent multiply-add chains as hide the
// latency of the widest machine (2 units x 5 cycles), all in registers.
enum { FC_NAME(burn_chains) = 12 };

double FC_NAME(fma_burn)(int64_t rounds) {
    vec sum[FC_NAME(burn_chains)];
    const vec x = v_set1((T)0.999), y = v_set1((T)0.001);
#pragma GCC unroll 12 // every loop over the chains, or the array would live in memory
    for (int i = 0; i < FC_NAME(burn_chains); i++) sum[i] = v_set1((T)i);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < FC_NAME(burn_chains); i++) {
            sum[i] = v_fma(sum[i], x, y);
            FC_KEEP(sum[i]);
        }
    }
#pragma GCC unroll 12
    for (int i = 1; i < FC_NAME(burn_chains); i++) sum[0] = v_add(sum[0], sum[i]);
    T lanes[FC_VL];
    v_store(lanes, sum[0]);
    // The flops of one round travel with the result so that nobody has to know the number of chains.
    return lanes[0] > (T)-1e30 ? 2.0 * FC_VL * FC_NAME(burn_chains) : 0.0;
}
