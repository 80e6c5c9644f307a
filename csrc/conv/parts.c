// SPDX-License-Identifier: BSD-3-Clause
//
// parts.c - a problem by its parts: those that are the same problem share a plan, and differ in where their weights and
// their results lie.  What no part writes is filled with bias, residual and activation alone.
//
// So planning takes time and memory by the number of different problems, whatever the stride that told them apart.
#include "conv/parts.h"
#include "conv/activate.h"

// ---------------------------------------------------------------------------------------------------------- visiting

typedef fc_status (*visit_fn)(void *context, const fc_problem *part, const fc_series series[FC_AXES], double count);

fc_series fc_whole_series(const fc_split *split, int axis, int64_t index) {
    return (fc_series){.axis = split->whole.axis[axis], .count = index == 0};
}

// Parts along one axis that have the same weights, and so are the images of a batch.
static void join_images(const fc_split *split, fc_problem *part, fc_series series[FC_AXES]) {
    int most = 0;
    for (int i = 1; i < FC_AXES; i++)
        if (series[i].count > series[most].count) most = i;
    part->batch = series[most].count;
    part->src.outer = series[most].from_step * split->whole.src.axis[most];
    part->dst.outer = series[most].at_step * split->whole.dst.axis[most];
    series[most].count = 1;
}

// Visits the different problems, each with how many parts it stands for.  Of an axis with more than `sample` kinds of
// series those visited stand for their neighbours too.
static fc_status visit(const fc_split *split, int64_t sample, visit_fn fn, void *context) {
    fc_series series[FC_AXES];
    int64_t skip[FC_AXES], size[FC_AXES];
    for (int i = 0; i < FC_AXES; i++) {
        skip[i] = fc_max(1, fc_ceil_div(split->kinds[i], sample));
        size[i] = 4 * fc_ceil_div(split->kinds[i], skip[i]);
    }
    for (int64_t at = 0; at < size[0] * size[1] * size[2]; at++) {
        const int64_t index[FC_AXES] = {at / size[2] / size[1], at / size[2] % size[1], at % size[2]};
        fc_problem part = split->whole;
        double count = 1;
        for (int i = 0; i < FC_AXES && count > 0; i++) {
            series[i] = split->series(split, i, index[i] / 4 * skip[i] * 4 + index[i] % 4);
            part.axis[i] = series[i].axis;
            part.src.axis[i] *= split->src_step[i];
            part.wei.axis[i] *= split->tap_step[i];
            part.dst.axis[i] *= split->step[i];
            count *= (double)(series[i].count * skip[i]);
        }
        if (count > 0 && split->one_kernel && part.batch == 1) {
            join_images(split, &part, series);
            count /= (double)part.batch;
        }
        const fc_status status = count > 0 ? fn(context, &part, series, count) : FC_OK;
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------ asking

typedef struct asking {
    const fc_split *split;
    fc_ask_fn ask;
    const fc_options *options;
    fc_verdict sum;
    double written; // positions
} asking;

// Of one image of the whole.
static double written_by(const fc_problem *part, const fc_problem *whole) {
    return (double)fc_positions(part) * (double)part->batch / (double)fc_max(1, whole->batch);
}

static fc_status ask_part(void *context, const fc_problem *part, const fc_series series[FC_AXES], double count) {
    (void)series;
    asking *a = context;
    const fc_verdict v = a->ask(&(fc_op){FC_CONV, part}, a->options);
    if (v.refusal) {
        a->sum = v;
        return FC_UNSUPPORTED;
    }
    a->sum.cost += count * v.cost;
    a->sum.packing = a->split->one_kernel ? fmax(a->sum.packing, v.packing) : a->sum.packing + count * v.packing;
    a->written += count * written_by(part, &a->split->whole);
    return FC_OK;
}

static double positions_of(const fc_split *split) {
    return (double)split->positions[0] * (double)split->positions[1] * (double)split->positions[2];
}

fc_verdict fc_parts_ask(const fc_split *split, fc_ask_fn ask, const fc_options *options) {
    asking a = {.split = split, .ask = ask, .options = options};
    if (visit(split, split->sample, ask_part, &a) != FC_OK) return a.sum;
    const fc_problem *p = &split->whole;
    const double channels = (double)p->batch * (double)p->groups * (double)p->out_channels;
    const double filled = fmax(0, positions_of(split) - a.written) * channels;
    if (filled > 0) a.sum.cost += options->costs.fixed + fc_cost_elements(filled, &options->costs);
    return a.sum;
}

// ------------------------------------------------------------------------------------------------------------ layout

// The parts that share plan->parts[i].plan, and how many times its weights are packed for them: for each part, once for
// all, or not at all, where they lie as an earlier plan's.
typedef struct group {
    fc_series series[FC_AXES];
    int64_t first, count, packs;
} group;

// The state of a plan.  Behind the groups, where not all is covered, a byte for each position along each axis tells
// whether a part writes there.
typedef struct parts {
    fc_problem whole;
    int64_t count; // of parts
    int filled;
    group groups[];
} parts;

static const parts *parts_of(const fc_plan *plan) { return plan->state; }

static int channels_last(const fc_problem *p) { return p->dst.channel < p->dst.axis[2]; }

static unsigned char *covered(parts *s, int64_t groups) { return (unsigned char *)&s->groups[groups]; }

static size_t bias_bytes(const fc_plan *plan) {
    const fc_problem *p = &parts_of(plan)->whole;
    return (size_t)(p->groups * p->out_channels * fc_bytes(p->types.destination));
}

// The packed weights of a part.  There may be a part for each element of a kernel: those that are small stand close.
static size_t part_bytes(const fc_plan *part) {
    const size_t bytes = part->packed_bytes;
    return bytes < FC_ALIGN ? (bytes + 7) / 8 * 8 : fc_align(bytes);
}

typedef struct making {
    fc_plan *plan;
    const fc_split *split;
    const fc_request *request;
    const fc_options *options;
    char *message;
    double written, longest;
} making;

static fc_status count_part(void *context, const fc_problem *part, const fc_series series[FC_AXES], double count) {
    (void)series;
    making *m = context;
    m->plan->part_count++;
    m->written += count * written_by(part, &m->split->whole);
    return FC_OK;
}

static fc_status make_part(void *context, const fc_problem *part, const fc_series series[FC_AXES], double count) {
    making *m = context;
    fc_plan *plan = m->plan;
    parts *s = plan->state;
    group *g = &s->groups[plan->part_count];
    fc_part *made = &plan->parts[plan->part_count];
    const fc_status status = m->request->planner->plan(&(fc_op){FC_CONV, part}, m->options, &made->plan, m->message);
    if (status != FC_OK) return status;
    plan->part_count++;
    memcpy(g->series, series, sizeof g->series);
    g->first = s->count;
    g->count = series[0].count * series[1].count * series[2].count;
    s->count += g->count;
    g->packs = m->split->one_kernel ? 1 : g->count;
    made->packed = plan->packed_bytes;
    for (int64_t i = 0; m->split->one_kernel && i + 1 < plan->part_count; i++)
        if (plan->parts[i].plan->tag == made->plan->tag) {
            made->packed = plan->parts[i].packed;
            g->packs = 0;
        }
    plan->packed_bytes += (size_t)g->packs * part_bytes(made->plan);
    if (count * made->plan->seconds > m->longest) {
        m->longest = count * made->plan->seconds;
        plan->id = made->plan->id;
    }
    return FC_OK;
}

static void cover(const fc_split *split, unsigned char *at) {
    for (int i = 0; i < FC_AXES; at += split->positions[i], i++)
        for (int64_t index = 0; index < 4 * split->kinds[i]; index++) {
            const fc_series s = split->series(split, i, index);
            for (int64_t j = 0; j < s.count; j++)
                for (int64_t o = 0; o < s.axis.out; o++) at[s.at + j * s.at_step + o * split->step[i]] = 1;
        }
}

// Where the weights of the parts lie.
static uint64_t weights_tag(const fc_plan *plan) {
    const parts *s = parts_of(plan);
    uint64_t tag = 0;
    for (int64_t i = 0; i < plan->part_count; i++)
        for (int axis = 0; axis < FC_AXES; axis++) {
            const fc_series *series = &s->groups[i].series[axis];
            const int64_t stride = s->whole.wei.axis[axis];
            tag = fc_tag(fc_tag(fc_tag(tag, series->count), series->tap * stride), series->tap_step * stride);
        }
    return tag;
}

fc_status fc_parts_layout(fc_plan *plan, const fc_split *split, const fc_request *r, const fc_options *options,
                          char message[FC_MESSAGE]) {
    const int64_t all = INT64_MAX / 2;
    making m = {.plan = plan, .split = split, .request = r, .options = options, .message = message};
    (void)visit(split, all, count_part, &m);
    const int64_t groups = plan->part_count;
    const int filled = m.written < positions_of(split);
    const int64_t bytes = filled ? split->positions[0] + split->positions[1] + split->positions[2] : 0;
    plan->part_count = 0;
    plan->parts = calloc((size_t)fc_max(1, groups), sizeof *plan->parts);
    parts *s = plan->state = calloc(1, sizeof *s + (size_t)groups * sizeof(group) + (size_t)bytes);
    if (!plan->parts || !s) return FC_NO_MEMORY;
    s->whole = split->whole;
    for (int i = 0; i < FC_AXES; i++) s->whole.axis[i].out = split->positions[i];
    if (channels_last(&s->whole) && s->whole.dst.group == s->whole.out_channels * s->whole.dst.channel) {
        s->whole.out_channels *= s->whole.groups; // as they are filled
        s->whole.groups = 1;
    }
    s->filled = filled;
    if (filled) {
        cover(split, covered(s, groups));
        plan->packed_bytes = fc_align(bias_bytes(plan));
    }
    if (plan->id == FC_AUTO) plan->id = FC_DIRECT; // what serves nothing
    const fc_status status = visit(split, all, make_part, &m);
    plan->packing[0] = filled;
    plan->packing[1] = (int64_t)weights_tag(plan);
    return status;
}

// Where one of the parts that share a plan lies: elements, and bytes of its packed weights.
typedef struct place {
    int64_t src, wei, dst, packed;
} place;

static place place_of(const fc_plan *plan, int64_t group_index, int64_t index) {
    const parts *s = parts_of(plan);
    const group *g = &s->groups[group_index];
    const fc_part *part = &plan->parts[group_index];
    place at = {.packed = (int64_t)part->packed};
    if (g->packs > 1) at.packed += index * (int64_t)part_bytes(part->plan);
    for (int i = FC_AXES - 1; i >= 0; index /= g->series[i].count, i--) {
        const fc_series *series = &g->series[i];
        const int64_t j = index % series->count;
        at.src += (series->from + j * series->from_step) * s->whole.src.axis[i];
        at.wei += (series->tap + j * series->tap_step) * s->whole.wei.axis[i];
        at.dst += (series->at + j * series->at_step) * s->whole.dst.axis[i];
    }
    return at;
}

fc_status fc_parts_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    if (parts_of(plan)->filled) {
        if (bias) memcpy(packed, bias, bias_bytes(plan));
        else memset(packed, 0, bias_bytes(plan));
    }
    for (int64_t i = 0; i < plan->part_count; i++)
        for (int64_t j = 0; j < parts_of(plan)->groups[i].packs; j++) {
            const fc_plan *part = plan->parts[i].plan;
            const place at = place_of(plan, i, j);
            const void *first = fc_at(wei, at.wei, part->problem.types.weight);
            const fc_status status = fc_plan_pack(part, first, bias, (char *)packed + at.packed, threads);
            if (status != FC_OK) return status;
        }
    return FC_OK;
}

// ----------------------------------------------------------------------------------------------------------- filling

typedef struct filling {
    const fc_problem *problem;
    const fc_kernels *kernels;
    const void *bias, *residual;
    void *dst;
} filling;

// Some columns of every channel, which are finished by their activation.
#define FC_FILL(T, S)                                                                                                  \
    static void fill_##S(const filling *f, int64_t group, int64_t offset, int64_t columns) {                           \
        const fc_problem *p = f->problem;                                                                              \
        const T *bias = (const T *)f->bias + group * p->out_channels, *residual = f->residual;                         \
        T *dst = (T *)f->dst;                                                                                          \
        const T low = (T)p->low, high = (T)p->high;                                                                    \
        const int last = channels_last(p);                                                                             \
        const int64_t inner = last ? p->out_channels : columns, step = last ? p->dst.channel : p->dst.axis[2];         \
        for (int64_t i = 0; i < (last ? columns : p->out_channels); i++) {                                             \
            const int64_t start = offset + i * (last ? p->dst.axis[2] : p->dst.channel);                               \
            for (int64_t j = 0; j < inner; j++) {                                                                      \
                T v = 0 + bias[last ? j : i];                                                                          \
                if (residual) v += residual[start + j * step];                                                         \
                if (v < low) v = low;                                                                                  \
                if (v > high) v = high;                                                                                \
                dst[start + j * step] = v;                                                                             \
            }                                                                                                          \
            fc_activate_run(f->kernels, p, dst + start, inner, step);                                                  \
        }                                                                                                              \
    }

FC_FILL(float, f32)
FC_FILL(double, f64)

// A row's columns but those that are covered.  Without a residual all are alike, and but one of them is computed.
static void fill_row(const filling *f, int64_t group, int64_t offset, const unsigned char *covered) {
    const fc_problem *p = f->problem;
    const int64_t width = p->axis[2].out, column = p->dst.axis[2], element = f->kernels->element;
    int64_t first = -1;
    for (int64_t x = 0, end; x < width; x = end) {
        end = x + 1;
        if (covered && covered[x]) continue;
        while (end < width && !(covered && covered[end])) end++;
        const int copied = !f->residual && first >= 0;
        const int64_t computed = copied ? 0 : f->residual ? end - x : 1, left = end - x - computed;
        if (computed) {
            first = offset + x * column;
            (p->types.destination == FC_F32 ? fill_f32 : fill_f64)(f, group, first, computed);
        }
        const int last = channels_last(p);
        const fc_rectangle copy = {
            .src = (const char *)f->dst + first * element,
            .dst = (char *)f->dst + (offset + (x + computed) * column) * element,
            .rows = last ? left : p->out_channels,
            .columns = last ? p->out_channels : left,
            .src_row = last ? 0 : p->dst.channel,
            .src_column = last ? p->dst.channel : 0,
            .dst_row = last ? column : p->dst.channel,
            .dst_column = last ? p->dst.channel : column,
        };
        if (left) f->kernels->rectangle(&copy);
    }
}

// A row of every channel of an image.
static void fill_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    parts *s = stage->plan->state;
    const fc_problem *p = &s->whole;
    const int64_t depth = p->axis[0].out, height = p->axis[1].out;
    const int64_t h = task % height, d = task / height % depth, image = task / height / depth % p->batch;
    const int64_t group = task / height / depth / p->batch;
    const unsigned char *depths = covered(s, stage->plan->part_count), *rows = depths + depth, *columns = rows + height;
    const int64_t offset = group * p->dst.group + image * p->dst.outer + d * p->dst.axis[0] + h * p->dst.axis[1];
    const filling f = {p, stage->plan->kernels, fc_operand(call, stage->at.wei), fc_operand(call, stage->at.residual),
                       fc_operand(call, stage->at.dst)};
    fill_row(&f, group, offset, depths[d] && rows[h] ? columns : NULL);
}

// ----------------------------------------------------------------------------------------------------------- running

enum { FC_FEW = 16, FC_SHARES = 16 };

// Parts write disjoint elements, and so run side by side.  Where they need no scratch, tasks of the same number run
// together: the phases of a stride write the same lines of dst, and read the same rows of src.
static void side_by_side(const fc_plan *plan, int threads, fc_list *list) {
    const fc_types types = parts_of(plan)->whole.types;
    const int64_t source = fc_bytes(types.source), element = fc_bytes(types.destination);
    const fc_places at = list->at;
    for (int64_t i = 0; i < plan->part_count; i++)
        for (int64_t j = 0; j < parts_of(plan)->groups[i].count; j++) {
            const place part = place_of(plan, i, j);
            list->at.src = fc_behind(at.src, part.src * source);
            list->at.wei = fc_behind(at.wei, part.packed);
            list->at.dst = fc_behind(at.dst, part.dst * element);
            list->at.residual = fc_behind(at.residual, part.dst * element);
            if (i + j > 0 && list->schedule->shared == 0) list->order = list->schedule->each ? FC_BESIDE : FC_TOGETHER;
            plan->parts[i].plan->kind->stages(plan->parts[i].plan, threads, list);
        }
    list->at = at;
}

// Where there are many, a thread takes one after the other alone.
typedef struct shares {
    int64_t count;
    const fc_schedule *schedules[]; // of each plan
} shares;

static void share_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const fc_plan *plan = stage->plan;
    const parts *s = parts_of(plan);
    const shares *shares = stage->context;
    const int64_t source = fc_bytes(s->whole.types.source), element = fc_bytes(s->whole.types.destination);
    const int64_t end = (task + 1) * s->count / shares->count;
    for (int64_t at = task * s->count / shares->count, i = 0; at < end && !fc_must_stop(); at++) {
        while (at >= s->groups[i].first + s->groups[i].count) i++;
        const place part = place_of(plan, i, at - s->groups[i].first);
        const fc_operands operands = {.src = fc_operand(call, fc_behind(stage->at.src, part.src * source)),
                                      .wei = fc_operand(call, fc_behind(stage->at.wei, part.packed)),
                                      .residual = fc_operand(call, fc_behind(stage->at.residual, part.dst * element)),
                                      .dst = fc_operand(call, fc_behind(stage->at.dst, part.dst * element))};
        fc_schedule_run_alone(shares->schedules[i], &operands, fc_own_scratch(call, thread));
    }
}

static void shared_out(const fc_plan *plan, int threads, fc_list *list) {
    const size_t bytes = sizeof(shares) + (size_t)plan->part_count * sizeof(const fc_schedule *);
    shares *s = malloc(bytes);
    if (!s) {
        list->status = FC_NO_MEMORY;
        return;
    }
    s->count = fc_min(parts_of(plan)->count, (int64_t)FC_SHARES * threads);
    for (int64_t i = 0; i < plan->part_count && list->status == FC_OK; i++) {
        list->status = fc_plan_schedule(plan->parts[i].plan, 1, &s->schedules[i]);
        if (list->status == FC_OK) fc_list_scratch(list, 0, fc_schedule_scratch_bytes(s->schedules[i]));
    }
    fc_list_stage(list, plan, share_task, s->count, fc_list_keep(list, s, bytes));
    free(s);
}

void fc_parts_stages(const fc_plan *plan, int threads, fc_list *list) {
    const parts *s = parts_of(plan);
    const fc_problem *p = &s->whole;
    if (s->filled) {
        fc_list_stage(list, plan, fill_task, p->groups * p->batch * p->axis[0].out * p->axis[1].out, NULL);
        list->order = FC_BESIDE;
    }
    if (p->batch == 0) return;
    if (s->count > FC_FEW && s->count >= 2 * threads) shared_out(plan, threads, list);
    else side_by_side(plan, threads, list);
}

// That of the last part, as its algorithm.
const char *fc_parts_form(const fc_plan *plan) {
    return plan->part_count ? fc_plan_form(plan->parts[plan->part_count - 1].plan) : "";
}
