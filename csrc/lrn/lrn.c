// SPDX-License-Identifier: BSD-3-Clause
//
// lrn.c - local response normalisation and its gradient: by vectors of channels where those adjoin, else by vectors of
// pixels.
#include "fold/fold.h"

enum { FC_LRN_TASK = 16384 }; // elements

fc_status fc_check_lrn(const void *problem, char message[FC_MESSAGE]) {
    const fc_lrn *l = problem;
    const fc_status status = fc_fold_check(l->axis, l->rank, l->dtype, message);
    int channel_axes = 0;
    for (int i = 0; i < l->rank && status == FC_OK; i++) channel_axes += l->axis[i].folded != 0;
    FC_CHECK(status != FC_OK || channel_axes == 1, "%d axes of channels", channel_axes);
    FC_CHECK(l->before >= 0 && l->after >= 0 && l->before <= fc_largest && l->after <= fc_largest,
             "a window from %lld before to %lld after", (long long)l->before, (long long)l->after);
    return status;
}

typedef struct lrn {
    fc_fold_axis channel, pixel; // pixel: those of one call
    fc_fold_axis other[FC_RANK];
    int others;
    int over_channels;
    int64_t before, after;        // within the channels there are
    int64_t lines, pixels, parts; // of other axes; pixels of a task, and tasks of a line
} lrn;

static lrn lrn_of(const fc_lrn *l) {
    lrn s = {.pixel = {1, 0, 0, 0, 0}, .lines = 1};
    fc_fold_axis rest[FC_RANK];
    int n = 0;
    for (int i = 0; i < l->rank; i++) {
        if (l->axis[i].folded) s.channel = l->axis[i];
        else rest[n++] = l->axis[i];
    }
    for (int i = 0; i < n && !l->gradient; i++) rest[i].wei = 0; // which is not read
    n = fc_fold_joined(rest, memcpy((fc_fold_axis[FC_RANK]){0}, rest, sizeof rest), n);
    if (n > 0) s.pixel = rest[--n];
    for (int i = 0; i < n; i++) s.lines *= rest[i].count;
    s.others = n;
    memcpy(s.other, rest, sizeof rest);
    s.over_channels = s.channel.src == 1 && s.pixel.src != 1;
    s.before = fc_min(l->before, fc_max(0, s.channel.count - 1));
    s.after = fc_min(l->after, fc_max(0, s.channel.count - 1));
    s.pixels = fc_clamp(1, fc_round_up(FC_LRN_TASK / fc_max(1, s.channel.count), 64), fc_max(1, s.pixel.count));
    s.parts = fc_ceil_div(s.pixel.count, s.pixels);
    return s;
}

static double cost(const fc_request *r) {
    const fc_lrn *l = r->op->problem;
    const lrn s = lrn_of(l);
    const double vectors = (double)s.lines * (double)s.pixel.count * (double)s.channel.count / (double)r->kernels->vl;
    const double passes = l->gradient ? 2 : 1;
    const double power = l->beta == 0.75 || l->beta == 1 || l->beta == 0.5 ? 10e-9 : 20e-9 * (double)r->kernels->vl;
    return 2e-7 + passes * vectors * (power + 0.3e-9 * (double)(s.before + s.after + 1));
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)r, (void)message;
    lrn *s = plan->state = malloc(sizeof *s);
    if (!s) return FC_NO_MEMORY;
    *s = lrn_of(&plan->lrn);
    return FC_OK;
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const lrn *s = stage->plan->state;
    const fc_lrn *l = &stage->plan->lrn;
    const fc_kernels *k = stage->plan->kernels;
    const int64_t first = fc_digit(&index, s->parts) * s->pixels;
    int64_t src = first * s->pixel.src, dst = first * s->pixel.dst, g = first * s->pixel.wei;
    for (int i = s->others - 1; i >= 0; i--) {
        const int64_t at = fc_digit(&index, s->other[i].count);
        src += at * s->other[i].src;
        dst += at * s->other[i].dst;
        g += at * s->other[i].wei;
    }
    const fc_lrn_work work = {
        .channels = s->channel.count,
        .pixels = fc_min(s->pixels, s->pixel.count - first),
        .src_channel = s->channel.src,
        .src_pixel = s->pixel.src,
        .g_channel = s->channel.wei,
        .g_pixel = s->pixel.wei,
        .dst_channel = s->channel.dst,
        .dst_pixel = s->pixel.dst,
        .before = s->before,
        .after = s->after,
        .share = l->share,
        .beta = l->beta,
        .k = l->k,
        .src = (const char *)fc_operand(call, stage->at.src) + src * k->element,
        .g = l->gradient ? (const char *)fc_operand(call, stage->at.other[0]) + g * k->element : NULL,
        .dst = (char *)fc_operand(call, stage->at.dst) + dst * k->element,
        .room = fc_own_scratch(call, thread),
    };
    if (l->gradient) (s->over_channels ? k->lrn_grad_channels : k->lrn_grad_planes)(&work);
    else (s->over_channels ? k->lrn_channels : k->lrn_planes)(&work);
}

// Elements of a thread, as the kernels have it.
static int64_t room_of(const lrn *s, int gradient, int64_t vl) {
    const int64_t line = s->channel.count + s->before + s->after + vl;
    if (s->over_channels) return gradient ? 2 * line : line;
    return gradient ? 4 * s->channel.count * vl : 0;
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const lrn *s = plan->state;
    const int64_t room = room_of(s, plan->lrn.gradient, plan->kernels->vl);
    list->schedule->exact = 1;
    if (s->channel.count == 0) return;
    if (room) fc_list_scratch(list, 0, (size_t)(room * plan->kernels->element));
    fc_list_stage(list, plan, task, s->lines * s->parts, NULL);
}

static const fc_kind kind = {
    .name = "lrn",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = stages,
};

const fc_kind *const fc_kinds_lrn[] = {&kind, NULL};
