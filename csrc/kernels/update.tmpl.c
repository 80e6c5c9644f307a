// SPDX-License-Identifier: BSD-3-Clause
//
// update.tmpl.c - a step of an optimiser: every array goes through memory once.

typedef struct FC_NAME(update_numbers) {
    int decays;
    vec rate, decay, momentum, keep, shrink, square, rest, root, eps;
} FC_NAME(update_numbers);

// The gradient with its decay: without any, an infinite parameter is to stay so.
FC_INLINE vec FC_NAME(update_decayed)(const FC_NAME(update_numbers) * c, vec p, vec g) {
    return c->decays ? v_fma(c->decay, p, g) : g;
}

// What a vector of the gradient makes of those of the parameters and of the states.
FC_INLINE vec FC_NAME(update_sgd)(const FC_NAME(update_numbers) * c, vec p, vec g, vec state[FC_UPDATE_STATES],
                                  const int states, const int fresh, const int nesterov) {
    vec d = FC_NAME(update_decayed)(c, p, g);
    if (states) {
        state[0] = fresh ? d : v_fma(c->keep, d, v_mul(c->momentum, state[0]));
        d = nesterov ? v_fma(c->momentum, state[0], d) : state[0];
    }
    return v_fnma(c->rate, d, p);
}

FC_INLINE vec FC_NAME(update_adam)(const FC_NAME(update_numbers) * c, vec p, vec g, vec state[FC_UPDATE_STATES],
                                   const int states) {
    p = v_mul(p, c->shrink);
    const vec d = FC_NAME(update_decayed)(c, p, g);
    state[0] = v_fma(c->keep, d, v_mul(c->momentum, state[0]));
    state[1] = v_fma(v_mul(c->rest, d), d, v_mul(c->square, state[1]));
    vec largest = state[1];
    if (states > 2) // NaN if either is
        largest = state[2] = v_select(FC_NAME(is_nan)(largest), largest, v_max(largest, state[2]));
    return v_fnma(c->rate, v_div(state[0], v_fma(v_sqrt(largest), c->root, c->eps)), p);
}

FC_INLINE void FC_NAME(update_as)(const fc_update_work *w, const fc_update_kind kind, const int states, const int fresh,
                                  const int nesterov) {
    const fc_update_rule *r = w->rule;
    const double keep = kind == FC_UPDATE_ADAM ? 1 - r->momentum : r->keep;
    const FC_NAME(update_numbers) c = {
        .decays = r->decay != 0,
        .rate = v_set1((T)r->rate),
        .decay = v_set1((T)r->decay),
        .momentum = v_set1((T)r->momentum),
        .keep = v_set1((T)keep),
        .shrink = v_set1((T)r->shrink),
        .square = v_set1((T)r->square),
        .rest = v_set1((T)(1 - r->square)),
        .root = v_set1((T)r->root),
        .eps = v_set1((T)r->eps),
    };
    T *p = w->p;
    const T *g = w->g;
    for (int64_t i = 0; i < w->count; i += FC_VL) {
        const int64_t n = FC_NAME(lanes_of)(w->count - i);
        const int whole = n == FC_VL;
        vec state[FC_UPDATE_STATES] = {v_set1(0), v_set1(0), v_set1(0)};
#pragma GCC unroll 3
        for (int s = 0; s < states && !fresh; s++) {
            const T *at = (const T *)w->state[s] + i;
            state[s] = whole ? v_load(at) : v_load_part(at, n);
        }
        vec x = whole ? v_load(p + i) : v_load_part(p + i, n);
        const vec y = whole ? v_load(g + i) : v_load_part(g + i, n);
        x = kind == FC_UPDATE_SGD ? FC_NAME(update_sgd)(&c, x, y, state, states, fresh, nesterov)
                                  : FC_NAME(update_adam)(&c, x, y, state, states);
#pragma GCC unroll 3
        for (int s = 0; s < states; s++) {
            T *at = (T *)w->state[s] + i;
            if (whole) v_store(at, state[s]);
            else v_store_part(at, state[s], n);
        }
        if (whole) v_store(p + i, x);
        else v_store_part(p + i, x, n);
    }
}

void FC_NAME(update)(const fc_update_work *w) {
    if (w->rule->kind == FC_UPDATE_ADAM && w->state[2]) FC_NAME(update_as)(w, FC_UPDATE_ADAM, 3, 0, 0);
    else if (w->rule->kind == FC_UPDATE_ADAM) FC_NAME(update_as)(w, FC_UPDATE_ADAM, 2, 0, 0);
    else if (!w->state[0]) FC_NAME(update_as)(w, FC_UPDATE_SGD, 0, 0, 0);
    else if (w->fresh && w->rule->nesterov) FC_NAME(update_as)(w, FC_UPDATE_SGD, 1, 1, 1);
    else if (w->fresh) FC_NAME(update_as)(w, FC_UPDATE_SGD, 1, 1, 0);
    else if (w->rule->nesterov) FC_NAME(update_as)(w, FC_UPDATE_SGD, 1, 0, 1);
    else FC_NAME(update_as)(w, FC_UPDATE_SGD, 1, 0, 0);
}
