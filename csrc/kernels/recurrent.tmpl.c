// SPDX-License-Identifier: BSD-3-Clause
//
// recurrent.tmpl.c - the gates of recurrent layers, after their products.

FC_INLINE vec FC_NAME(part_of)(const T *p, int64_t count) { return count == FC_VL ? v_load(p) : v_load_part(p, count); }

FC_INLINE void FC_NAME(part_to)(T *p, vec v, int64_t count) {
    if (count == FC_VL) v_store(p, v);
    else v_store_part(p, v, count);
}

FC_INLINE void FC_NAME(lstm_cells)(const T *x, const T *r, T *memory, T *dst, int64_t n, int64_t count) {
    const vec one = v_set1(1);
    vec gate[4];
    for (int g = 0; g < 4; g++) gate[g] = v_add(FC_NAME(part_of)(x + g * n, count), FC_NAME(part_of)(r + g * n, count));
    const vec in = FC_NAME(gated)(gate[0], one), out = FC_NAME(gated)(gate[1], one),
              keep = FC_NAME(gated)(gate[2], one);
    const vec c = v_fma(keep, FC_NAME(part_of)(memory, count), v_mul(in, FC_NAME(tanh)(gate[3])));
    FC_NAME(part_to)(memory, c, count);
    FC_NAME(part_to)(dst, v_mul(out, FC_NAME(tanh)(c)), count);
}

FC_INLINE void FC_NAME(gru_cells)(const T *x, const T *r, const T *last, T *dst, int64_t n, int64_t count) {
    const vec one = v_set1(1);
    const vec z = FC_NAME(gated)(v_add(FC_NAME(part_of)(x, count), FC_NAME(part_of)(r, count)), one);
    const vec s = FC_NAME(gated)(v_add(FC_NAME(part_of)(x + n, count), FC_NAME(part_of)(r + n, count)), one);
    const vec m = FC_NAME(tanh)(v_fma(s, FC_NAME(part_of)(r + 2 * n, count), FC_NAME(part_of)(x + 2 * n, count)));
    FC_NAME(part_to)(dst, v_fma(z, v_sub(FC_NAME(part_of)(last, count), m), m), count);
}

void FC_NAME(recurrent_cells)(const fc_cells *w) {
    const int64_t n = w->hidden, gates = w->kind == FC_LSTM ? 4 : 3;
    for (int64_t i = 0; i < w->count; i++) {
        const T *x = (const T *)w->input + i * gates * n, *r = (const T *)w->product + i * gates * n;
        const T *last = (const T *)w->last + i * n;
        T *memory = (T *)w->memory + i * n, *dst = (T *)w->dst + i * n;
        for (int64_t j = 0; j < n; j += FC_VL) {
            const int64_t count = FC_NAME(lanes_of)(n - j);
            if (w->kind == FC_LSTM) FC_NAME(lstm_cells)(x + j, r + j, memory + j, dst + j, n, count);
            else FC_NAME(gru_cells)(x + j, r + j, last + j, dst + j, n, count);
        }
    }
}
