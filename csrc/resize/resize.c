// SPDX-License-Identifier: BSD-3-Clause
//
// resize.c - images of another size by tables: every coordinate rule, any number of taps, and the gradients, which are the
// transposed tables.
//
// Where channels adjoin, a pixel is the sum of pixels, a vector of channels at a time.  Else the rows of a plane are
// resized along the row once each, as lines that stay in the cache, and output rows are sums of lines.
#include "core/family.h"
#include "core/plan.h"

enum { FC_RESIZE_TASK = 32768, FC_RESIZE_TAPS = 1 << 20 };

fc_status fc_check_resize(const void *problem, char message[FC_MESSAGE]) {
    const fc_resize *z = problem;
    int64_t in = 1, out = 1, taps = 1;
    FC_CHECK(z->dtype == FC_F32 || z->dtype == FC_F64, "dtype %d is unknown", (int)z->dtype);
    FC_CHECK(z->batch >= 0 && z->channels >= 0, "%lld images of %lld channels", (long long)z->batch,
             (long long)z->channels);
    FC_CHECK(fc_product_fits(&in, fc_max(1, z->batch)) && fc_product_fits(&in, fc_max(1, z->channels)),
             "the product of the sizes exceeds 2^48");
    out = in;
    for (int i = 0; i < FC_AXES; i++) {
        const fc_resize_axis *a = &z->axis[i];
        const int64_t strides[] = {z->src.outer, z->src.channel, z->src.axis[i],
                                   z->dst.outer, z->dst.channel, z->dst.axis[i]};
        FC_CHECK(a->in > 0 && a->in <= INT32_MAX && a->out > 0 && a->out <= INT32_MAX && a->taps > 0 && a->index,
                 "axis %d: %lld -> %lld elements by %lld", i, (long long)a->in, (long long)a->out, (long long)a->taps);
        FC_CHECK(a->weight || a->taps == 1, "axis %d: %lld taps without weights", i, (long long)a->taps);
        FC_CHECK(fc_product_fits(&in, a->in) && fc_product_fits(&out, a->out), "the product of the sizes exceeds 2^48");
        FC_CHECK(fc_product_fits(&taps, a->taps) && taps <= FC_RESIZE_TAPS && a->taps <= fc_largest / a->out,
                 "more than 2^20 taps");
        for (int t = 0; t < 6; t++)
            FC_CHECK(strides[t] >= -fc_largest && strides[t] <= fc_largest, "a stride exceeds 2^48 elements");
        for (int64_t t = 0; t < a->taps * a->out; t++) {
            FC_CHECK(a->index[t] >= 0 && a->index[t] < a->in, "axis %d: index %d of %lld elements", i, (int)a->index[t],
                     (long long)a->in);
            FC_CHECK(!a->weight || !isnan(a->weight[t]), "axis %d: a weight is NaN", i);
        }
    }
    return FC_OK;
}

// Tables of the plan, and how the work is shared.
typedef struct resize {
    const int32_t *index[FC_AXES];
    const void *weight[FC_AXES]; // in the plan's dtype, or NULL
    int over_channels;
    int64_t sources;                 // rows under an output row
    int64_t rows, parts;             // output rows (of all depths) of a task, and tasks of a plane
    int64_t channels, channel_parts; // over channels: 1 part
    int64_t line;                    // elements from line to line
} resize;

static int over_channels(const fc_resize *z) {
    return z->channels > 1 && z->src.channel == 1 && z->dst.channel == 1 && z->channels >= 4;
}

static double cost(const fc_request *r) {
    const fc_resize *z = r->op->problem;
    const fc_resize_axis *d = &z->axis[0], *h = &z->axis[1], *w = &z->axis[2];
    const double planes = (double)z->batch * (double)z->channels,
                 out = (double)w->out * (double)h->out * (double)d->out;
    const double vl = (double)r->kernels->vl;
    if (over_channels(z))
        return 1e-6 + planes * out / fmin(vl, (double)z->channels) * 0.6e-9 * (double)(2 + d->taps * h->taps * w->taps);
    const double lines = fmin((double)d->in * (double)h->in, (double)(d->out * d->taps) * (double)(h->out * h->taps));
    return 1e-6 + planes * (lines * (double)w->out * 0.4e-9 * (double)w->taps +
                            out / vl * 0.6e-9 * (double)(2 + d->taps * h->taps));
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    fc_resize *z = &plan->resize;
    const int64_t element = r->kernels->element;
    size_t bytes = fc_align(sizeof(resize));
    for (int i = 0; i < FC_AXES; i++) {
        const size_t entries = (size_t)(z->axis[i].taps * z->axis[i].out);
        bytes += fc_align(entries * sizeof(int32_t)) + fc_align(entries * (size_t)element);
    }
    char *memory = plan->state = malloc(bytes);
    if (!memory) return FC_NO_MEMORY;
    resize *s = plan->state;
    memset(s, 0, sizeof *s);
    memory += fc_align(sizeof *s);
    for (int i = 0; i < FC_AXES; i++) {
        fc_resize_axis *a = &z->axis[i];
        const size_t entries = (size_t)(a->taps * a->out);
        s->index[i] = memcpy(memory, a->index, entries * sizeof(int32_t));
        memory += fc_align(entries * sizeof(int32_t));
        for (size_t t = 0; t < entries && a->weight; t++) {
            if (z->dtype == FC_F32) ((float *)memory)[t] = (float)a->weight[t];
            else ((double *)memory)[t] = a->weight[t];
        }
        s->weight[i] = a->weight ? memory : NULL;
        memory += fc_align(entries * (size_t)element);
        a->index = NULL; // the caller's
        a->weight = NULL;
    }
    s->over_channels = over_channels(z);
    s->sources = z->axis[0].taps * z->axis[1].taps;
    s->line = fc_round_up(z->axis[2].out, FC_ALIGN / element);
    const int64_t rows = z->axis[0].out * z->axis[1].out;
    const int64_t row = z->axis[2].out * (s->over_channels ? z->channels : 1);
    // A band repeats the lines that it shares with the last one, so it has several times as many rows as those.
    s->rows = fc_clamp(fc_min(rows, 4 * s->sources), FC_RESIZE_TASK / row, rows);
    s->parts = fc_ceil_div(rows, s->rows);
    s->channels = s->over_channels ? z->channels : fc_clamp(1, FC_RESIZE_TASK / (row * rows), fc_max(1, z->channels));
    s->channel_parts = s->over_channels ? 1 : fc_ceil_div(z->channels, s->channels);
    return FC_OK;
}

static double weight_at(const fc_resize *z, const resize *s, int axis, int64_t entry) {
    if (!s->weight[axis]) return 1;
    return z->dtype == FC_F32 ? (double)((const float *)s->weight[axis])[entry]
                              : ((const double *)s->weight[axis])[entry];
}

// What a thread works in: the rows under an output row, and lines that have been made, by the number of their source row.
typedef struct resize_place {
    const void **rows;
    char *weights;
    int64_t *held; // [sources]: source row of each line, -1 for none
    char *lines;
} resize_place;

static size_t place_bytes(const resize *s, const fc_kernels *k) {
    return fc_align((size_t)s->sources * 8) * 3 + (size_t)(s->over_channels ? 0 : s->sources * s->line * k->element);
}

static resize_place place_in(char *own, const resize *s) {
    const size_t part = fc_align((size_t)s->sources * 8);
    return (resize_place){(const void **)own, own + part, (int64_t *)(own + 2 * part), own + 3 * part};
}

// Source rows (depth * height + row) and weights under output row `at`, those of weight zero left out; their number.
static int64_t sources_of(const fc_plan *plan, int64_t at, int64_t *row, char *weights) {
    const fc_resize *z = &plan->resize;
    const resize *s = plan->state;
    const fc_resize_axis *d = &z->axis[0], *h = &z->axis[1];
    const int64_t i = at / h->out, j = at % h->out;
    int64_t n = 0;
    for (int64_t t = 0; t < d->taps; t++)
        for (int64_t u = 0; u < h->taps; u++) {
            const double w = weight_at(z, s, 0, t * d->out + i) * weight_at(z, s, 1, u * h->out + j);
            if (w == 0) continue;
            row[n] = s->index[0][t * d->out + i] * h->in + s->index[1][u * h->out + j];
            if (z->dtype == FC_F32) ((float *)weights)[n] = (float)w;
            else ((double *)weights)[n] = w;
            n++;
        }
    return n;
}

// The line of a source row, made in a slot that no row of this output row holds, unless it is there.
static const void *line_of(const fc_plan *plan, const resize_place *place, const char *plane, int64_t row,
                           const int64_t *wanted, int64_t count) {
    const fc_resize *z = &plan->resize;
    const resize *s = plan->state;
    const fc_kernels *k = plan->kernels;
    int64_t slot = -1;
    for (int64_t i = 0; i < s->sources; i++) {
        if (place->held[i] == row) return place->lines + i * s->line * k->element;
        int used = 0;
        for (int64_t j = 0; j < count && slot < 0; j++) used |= place->held[i] == wanted[j];
        if (slot < 0 && !used) slot = i;
    }
    char *line = place->lines + slot * s->line * k->element;
    const int64_t at = row / z->axis[1].in * z->src.axis[0] + row % z->axis[1].in * z->src.axis[1];
    const fc_resize_line work = {
        .columns = z->axis[2].out,
        .taps = z->axis[2].taps,
        .src_step = z->src.axis[2],
        .index = s->index[2],
        .weight = s->weight[2],
        .src = plane + at * k->element,
        .dst = line,
    };
    k->resize_line(&work);
    place->held[slot] = row;
    return line;
}

static void plane_rows(const fc_plan *plan, const resize_place *place, const char *src, char *dst, int64_t first,
                       int64_t last) {
    const fc_resize *z = &plan->resize;
    const resize *s = plan->state;
    const fc_kernels *k = plan->kernels;
    int64_t *wanted = (int64_t *)place->rows; // pointers take the place of numbers, one by one
    for (int64_t i = 0; i < s->sources; i++) place->held[i] = -1;
    for (int64_t at = first; at < last && !fc_must_stop(); at++) {
        const int64_t count = sources_of(plan, at, wanted, place->weights);
        const int64_t to = at / z->axis[1].out * z->dst.axis[0] + at % z->axis[1].out * z->dst.axis[1];
        for (int64_t i = 0; i < count; i++) (void)line_of(plan, place, src, wanted[i], wanted, count);
        for (int64_t i = 0; i < count; i++) {
            const int64_t row = wanted[i];
            for (int64_t slot = 0; slot < s->sources; slot++)
                if (place->held[slot] == row) place->rows[i] = place->lines + slot * s->line * k->element;
        }
        const fc_resize_blend work = {
            .columns = z->axis[2].out,
            .count = count,
            .dst_step = z->dst.axis[2],
            .rows = place->rows,
            .weight = place->weights,
            .dst = dst + to * k->element,
        };
        k->resize_blend(&work);
    }
}

static void pixel_rows(const fc_plan *plan, const resize_place *place, const char *src, char *dst, int64_t first,
                       int64_t last) {
    const fc_resize *z = &plan->resize;
    const resize *s = plan->state;
    const fc_kernels *k = plan->kernels;
    for (int64_t at = first; at < last && !fc_must_stop(); at++) {
        const int64_t count = sources_of(plan, at, place->held, place->weights);
        const int64_t to = at / z->axis[1].out * z->dst.axis[0] + at % z->axis[1].out * z->dst.axis[1];
        for (int64_t i = 0; i < count; i++) {
            const int64_t row = place->held[i];
            const int64_t from = row / z->axis[1].in * z->src.axis[0] + row % z->axis[1].in * z->src.axis[1];
            place->rows[i] = src + from * k->element;
        }
        const fc_resize_pixels work = {
            .line = {.columns = z->axis[2].out,
                     .taps = z->axis[2].taps,
                     .src_step = z->src.axis[2],
                     .index = s->index[2],
                     .weight = s->weight[2],
                     .dst = dst + to * k->element},
            .channels = z->channels,
            .count = count,
            .dst_step = z->dst.axis[2],
            .rows = place->rows,
            .row_weight = place->weights,
        };
        k->resize_channels(&work);
    }
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_resize *z = &plan->resize;
    const resize *s = plan->state;
    const fc_kernels *k = plan->kernels;
    const resize_place place = place_in(fc_own_scratch(call, thread), s);
    const int64_t first = fc_digit(&index, s->parts) * s->rows,
                  last = fc_min(first + s->rows, z->axis[0].out * z->axis[1].out);
    const int64_t channel = fc_digit(&index, s->channel_parts) * s->channels;
    const char *src = (const char *)fc_operand(call, stage->at.src) + index * z->src.outer * k->element;
    char *dst = (char *)fc_operand(call, stage->at.dst) + index * z->dst.outer * k->element;
    if (s->over_channels) {
        pixel_rows(plan, &place, src, dst, first, last);
        return;
    }
    for (int64_t c = channel; c < fc_min(channel + s->channels, z->channels); c++)
        plane_rows(plan, &place, src + c * z->src.channel * k->element, dst + c * z->dst.channel * k->element, first,
                   last);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_resize *z = &plan->resize;
    const resize *s = plan->state;
    list->schedule->exact = 1; // nearest copies
    if (z->batch == 0 || z->channels == 0) return;
    fc_list_scratch(list, 0, place_bytes(s, plan->kernels));
    fc_list_stage(list, plan, task, z->batch * s->channel_parts * s->parts, NULL);
}

static const fc_kind kind = {
    .name = "resize",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = stages,
};

const fc_kind *const fc_kinds_resize[] = {&kind, NULL};
