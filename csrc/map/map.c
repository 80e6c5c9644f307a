// SPDX-License-Identifier: BSD-3-Clause
//
// map.c - chains of elementwise operations on strided arrays, and copies.
//
// Axes are sorted by the strides of dst and merged where every operand runs on, so that the last one, the columns, is long
// and contiguous where it can be; one more is the rows, and the rest is walked through.  A block is so many rows of so
// many columns that it stays in L1 while one operation after the other goes over it, in place in dst.  Operands whose
// columns neither follow each other nor repeat one element are first copied to scratch as they should be: a rectangle,
// whose rows are chosen such that it is transposed in registers where some axis of the operand has stride 1.
//
// A clamp is part of the operation before it.  Another cheap operation costs a load and a store of each vector in L1: 0.7 ns
// on Zen 4 with AVX-512, a third of what reading and writing it in memory does.
#include "core/family.h"
#include "core/plan.h"

enum {
    FC_MAP_BLOCK = 8192,   // bytes of an operand's part of a block: of several operands the parts lie in L1 together,
    FC_MAP_TURNED = 16384, // while it is turned: pairs of lines by 128 columns, the best of ten shapes,
    FC_MAP_COPY = 262144,  // or where nothing happens to it
    FC_MAP_LINE = 64,
    FC_MAP_TASK_NS = 2000,  // more than it costs to hand a task out
    FC_MAP_SRC = FC_OTHERS, // operands: the others in their order, src and dst
    FC_MAP_DST,
    FC_MAP_OPERANDS
};

// How an operand of a block is found.
typedef enum form { FC_MAP_THERE, FC_MAP_GATHERED } form;

typedef struct operand {
    int64_t start;         // of the first block, elements
    int64_t step[FC_RANK]; // from block to block along each axis of the grid
    int64_t row, column;   // within a block
    form form;
    int constant;   // the same in every block
    size_t scratch; // where it is gathered, bytes
} operand;

typedef struct map_plan {
    int32_t grid;               // axes of it; the last two are those of the blocks' rows and columns
    int64_t count[FC_RANK + 2]; // blocks along each
    int64_t size[2], block[2];  // of rows and columns: of all, and in a block
    int64_t blocks, per_task;
    int dense; // columns are few: the rows of a block are one row of gathered operands
    size_t scratch;
    operand operand[FC_MAP_OPERANDS];
    int32_t ops;
    struct {
        fc_map_op op;
        double low, high;
    } op[FC_MAP_MOST + 1];
} map_plan;

// ----------------------------------------------------------------------------------------------------------- the check

static const int32_t operands_of[] = {
#define FC_MAP(id, name, operands) [FC_MAP_##id] = operands,
    FC_MAP_LIST(FC_MAP)
#undef FC_MAP
};

const char *const fc_map_names[] = {
#define FC_MAP(id, name, operands) #name,
    FC_MAP_LIST(FC_MAP)
#undef FC_MAP
        NULL};

static fc_status check_op(const fc_map *m, int k, char message[FC_MESSAGE]) {
    const fc_map_op *op = &m->op[k];
    FC_CHECK(op->code >= 0 && op->code < FC_MAP_CODES, "operation %d: code %d is unknown", k, (int)op->code);
    for (int i = 0; i < operands_of[op->code] - 1; i++)
        FC_CHECK(op->with[i] >= 0 && op->with[i] < m->others, "operation %d: there is no operand %d", k,
                 (int)op->with[i]);
    FC_CHECK(op->code != FC_MAP_CLAMP || op->a <= op->b, "operation %d: the bounds are not ordered", k);
    return FC_OK;
}

fc_status fc_check_map(const void *problem, char message[FC_MESSAGE]) {
    const fc_map *m = problem;
    int64_t elements = 1;
    FC_CHECK(m->dtype == FC_F32 || m->dtype == FC_F64, "dtype %d is unknown", (int)m->dtype);
    FC_CHECK(m->rank >= 0 && m->rank <= FC_RANK, "%d axes", (int)m->rank);
    FC_CHECK(m->others >= 0 && m->others <= FC_OTHERS, "%d more operands", (int)m->others);
    FC_CHECK(m->count >= 0 && m->count <= FC_MAP_MOST, "%d operations", (int)m->count);
    int empty = 0;
    for (int i = 0; i < m->rank; i++) empty |= m->axis[i].size == 0;
    for (int i = 0; i < m->rank; i++) {
        const fc_map_axis *a = &m->axis[i];
        FC_CHECK(fc_product_fits(&elements, fc_max(a->size, 1)) && a->size >= 0, "axis %d: %lld elements", i,
                 (long long)a->size);
        FC_CHECK(a->size < 2 || a->dst != 0 || empty, "axis %d of the result is repeated", i);
        for (int k = -2; k < m->others; k++) {
            const int64_t stride = k == -2 ? a->src : k == -1 ? a->dst : a->other[k];
            FC_CHECK(stride >= -fc_largest && stride <= fc_largest, "axis %d: stride %lld", i, (long long)stride);
        }
    }
    for (int k = 0; k < m->count; k++) {
        const fc_status status = check_op(m, k, message);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------ the cost

static double elements_of(const fc_map *m) {
    double n = 1;
    for (int i = 0; i < m->rank; i++) n *= (double)m->axis[i].size;
    return n;
}

static int is_function(int32_t code) {
    return (code >= FC_MAP_EXP && code <= FC_MAP_MISH && code != FC_MAP_HARDSWISH && code != FC_MAP_HARDSWISH_SLOPE &&
            code != FC_MAP_LEAKY_RELU);
}

// Every operand goes through memory once, an operation through L1, and a vector of a function takes some fifty
// instructions.
static double cost(const fc_request *r) {
    const fc_map *m = r->op->problem;
    double vector = 0, element = (2 + m->others) * (double)r->kernels->element * 2e-11;
    for (int k = 0; k < m->count; k++) vector += is_function(m->op[k].code) ? 8e-9 : 0.3e-9;
    return 1e-7 + elements_of(m) * (element + vector / (double)r->kernels->vl);
}

// ---------------------------------------------------------------------------------------------------------- the layout

// An axis with the stride of each operand.
typedef struct axis {
    int64_t size, stride[FC_MAP_OPERANDS];
} axis;

static int64_t magnitude(int64_t n) { return n < 0 ? -n : n; }

// Axes of more than one element by falling strides of dst, all of them upwards; returns how many.
static int sorted_axes(const fc_map *m, axis axes[FC_RANK], operand operands[FC_MAP_OPERANDS]) {
    int rank = 0;
    for (int i = 0; i < m->rank; i++) {
        const fc_map_axis *from = &m->axis[i];
        if (from->size == 1) continue;
        axis a = {.size = from->size, .stride = {[FC_MAP_SRC] = from->src, [FC_MAP_DST] = from->dst}};
        for (int k = 0; k < m->others; k++) a.stride[k] = from->other[k];
        for (int k = 0; from->dst < 0 && k < FC_MAP_OPERANDS; k++) {
            operands[k].start += (a.size - 1) * a.stride[k];
            a.stride[k] = -a.stride[k];
        }
        int at = rank++;
        for (; at > 0; at--) {
            const int64_t *before = axes[at - 1].stride;
            if (before[FC_MAP_DST] > a.stride[FC_MAP_DST] ||
                (before[FC_MAP_DST] == a.stride[FC_MAP_DST] &&
                 magnitude(before[FC_MAP_SRC]) >= magnitude(a.stride[FC_MAP_SRC])))
                break;
            axes[at] = axes[at - 1];
        }
        axes[at] = a;
    }
    return rank;
}

static int runs_on(const axis *outer, const axis *inner) {
    for (int k = 0; k < FC_MAP_OPERANDS; k++)
        if (outer->stride[k] != inner->stride[k] * inner->size) return 0;
    return 1;
}

static int merged_axes(axis axes[FC_RANK], int rank) {
    int kept = 0;
    for (int i = 0; i < rank; i++) {
        if (kept && runs_on(&axes[kept - 1], &axes[i])) {
            axes[i].size *= axes[kept - 1].size;
            kept--;
        }
        axes[kept++] = axes[i];
    }
    return kept;
}

static int follows_or_repeats(int64_t stride) { return stride == 0 || stride == 1; }

// The axis beside the last that blocks have rows along: one along which an operand that has to be turned is contiguous, or
// else the next.
static int axis_of_rows(const axis *axes, int rank, int *turned) {
    static const int order[] = {FC_MAP_DST, FC_MAP_SRC, 0, 1, 2};
    *turned = 1;
    for (int k = 0; k < FC_MAP_OPERANDS; k++) {
        if (follows_or_repeats(axes[rank - 1].stride[order[k]])) continue;
        for (int i = 0; i < rank - 1; i++)
            if (axes[i].stride[order[k]] == 1) return i;
    }
    *turned = 0;
    return rank - 2;
}

// Whether an operand of a block is read or written where it lies.
static int is_there(const operand *o, int written, const map_plan *p) {
    if (p->dense) return (o->column == 1 && o->row == p->block[1]) || (!written && o->column == 0 && o->row == 0);
    return o->column == 1 || (!written && o->column == 0);
}

static void cut_blocks(map_plan *p, const axis *axes, int rank, int rows, int turned, int copies, const fc_kernels *k) {
    const axis none = {.size = 1}, *row = rows < 0 ? &none : &axes[rows], *column = rank ? &axes[rank - 1] : &none;
    const int64_t line = FC_MAP_LINE / k->element, lines = 2 * line;
    const int64_t piece = (turned ? FC_MAP_TURNED : copies ? FC_MAP_COPY : FC_MAP_BLOCK) / k->element;
    const int64_t most = turned ? fc_max(line, piece / fc_min(row->size, lines)) : piece;
    p->size[0] = row->size, p->size[1] = column->size;
    p->block[1] = fc_min(column->size, fc_round_up(fc_even(column->size, most), line));
    p->block[0] = fc_min(row->size, turned ? fc_max(lines, piece / p->block[1] / line * line) : piece / p->block[1]);
    p->block[0] = fc_max(1, p->block[0]);
    for (int i = 0; i < rank - 1; i++) {
        if (i == rows) continue;
        p->count[p->grid] = axes[i].size;
        for (int o = 0; o < FC_MAP_OPERANDS; o++) p->operand[o].step[p->grid] = axes[i].stride[o];
        p->grid++;
    }
    for (int o = 0; o < FC_MAP_OPERANDS; o++) {
        p->operand[o].row = row->stride[o];
        p->operand[o].column = column->stride[o];
    }
    for (int i = 0; i < 2; i++) {
        p->count[p->grid] = fc_ceil_div(p->size[i], p->block[i]);
        for (int o = 0; o < FC_MAP_OPERANDS; o++)
            p->operand[o].step[p->grid] = p->block[i] * (i ? column : row)->stride[o];
        p->grid++;
    }
    p->blocks = 1;
    for (int i = 0; i < p->grid; i++) p->blocks *= p->count[i];
    p->dense = p->block[1] < 2 * k->vl && p->block[1] == p->size[1] && p->block[0] > 1;
}

// The operations, but that a clamp becomes part of the one before it.
static void fold_clamps(map_plan *p, const fc_map *m) {
    for (int i = 0; i < m->count; i++) {
        const int clamp = m->op[i].code == FC_MAP_CLAMP;
        if (!clamp || p->ops == 0 || !(p->op[p->ops - 1].low == -INFINITY && p->op[p->ops - 1].high == INFINITY)) {
            p->op[p->ops].op = m->op[i];
            p->op[p->ops].low = -INFINITY;
            p->op[p->ops].high = INFINITY;
            p->ops++;
        }
        if (!clamp) continue;
        p->op[p->ops - 1].low = m->op[i].a;
        p->op[p->ops - 1].high = m->op[i].b;
    }
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    const fc_map *m = r->op->problem;
    const fc_kernels *k = r->kernels;
    map_plan *p = plan->state = calloc(1, sizeof *p);
    if (!p) return FC_NO_MEMORY;
    if (elements_of(m) == 0) return FC_OK;
    axis axes[FC_RANK];
    int turned = 0;
    const int rank = merged_axes(axes, sorted_axes(m, axes, p->operand));
    const int rows = rank < 2 ? -1 : axis_of_rows(axes, rank, &turned);
    cut_blocks(p, axes, rank, rows, turned, m->count == 0, k);
    fold_clamps(p, m);
    const size_t bytes = fc_align((size_t)(p->block[0] * p->block[1] * k->element));
    for (int o = 0; p->ops && o < FC_MAP_OPERANDS; o++) {
        if ((o < FC_OTHERS && o >= m->others) || is_there(&p->operand[o], o == FC_MAP_DST, p)) continue;
        p->operand[o].form = FC_MAP_GATHERED;
        if (o == FC_MAP_SRC) continue; // to where the result comes to be
        p->operand[o].scratch = p->scratch;
        p->operand[o].constant = o < FC_OTHERS && p->operand[o].row == 0;
        for (int i = 0; i < p->grid; i++) p->operand[o].constant &= p->count[i] == 1 || p->operand[o].step[i] == 0;
        p->scratch += bytes;
    }
    const double block = plan->seconds / (double)p->blocks;
    p->per_task = fc_clamp(1, (int64_t)(FC_MAP_TASK_NS * 1e-9 / block), p->blocks);
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------- running

typedef struct block {
    int64_t rows, columns;
    char *at[FC_MAP_OPERANDS]; // where the operands lie
} block;

static void copy(const fc_kernels *k, const block *b, const void *src, int64_t src_row, int64_t src_column, void *dst,
                 int64_t dst_row, int64_t dst_column) {
    const fc_rectangle work = {.src = src,
                               .dst = dst,
                               .rows = b->rows,
                               .columns = b->columns,
                               .src_row = src_row,
                               .src_column = src_column,
                               .dst_row = dst_row,
                               .dst_column = dst_column};
    k->rectangle(&work);
}

// `scratch` holds what was gathered for the block before, if any.
static void run_block(const map_plan *p, const fc_kernels *k, const block *b, int first, char *scratch) {
    const operand *src = &p->operand[FC_MAP_SRC], *dst = &p->operand[FC_MAP_DST];
    if (p->ops == 0) {
        copy(k, b, b->at[FC_MAP_SRC], src->row, src->column, b->at[FC_MAP_DST], dst->row, dst->column);
        return;
    }
    fc_map_rows work = {.rows = p->dense ? 1 : b->rows, .columns = p->dense ? b->rows * b->columns : b->columns};
    const int scattered = dst->form == FC_MAP_GATHERED;
    work.dst = scattered ? scratch + dst->scratch : b->at[FC_MAP_DST];
    work.dst_row = scattered ? b->columns : dst->row;
    fc_map_operand at[FC_MAP_OPERANDS];
    for (int o = 0; o <= FC_MAP_SRC; o++) {
        const operand *from = &p->operand[o];
        at[o] = (fc_map_operand){b->at[o], from->row, from->column};
        if (from->form != FC_MAP_GATHERED) continue;
        at[o] = (fc_map_operand){scratch + from->scratch, b->columns, 1};
        if (o == FC_MAP_SRC) at[o] = (fc_map_operand){work.dst, work.dst_row, 1};
        const block whole = {p->block[0], p->block[1], {NULL}}; // where later blocks have more rows
        if (first || !from->constant)
            copy(k, from->constant ? &whole : b, b->at[o], from->row, from->column, (void *)at[o].at, at[o].row, 1);
    }
    work.x = at[FC_MAP_SRC];
    for (int i = 0; i < p->ops; i++) {
        const fc_map_op *op = &p->op[i].op;
        work.code = (fc_map_code)op->code;
        work.a = op->a, work.b = op->b;
        work.low = p->op[i].low, work.high = p->op[i].high;
        work.y = at[op->with[0]], work.z = at[op->with[1]];
        k->map_rows(&work);
        work.x = (fc_map_operand){work.dst, work.dst_row, 1};
    }
    if (scattered) copy(k, b, work.dst, b->columns, 1, b->at[FC_MAP_DST], dst->row, dst->column);
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const map_plan *p = stage->plan->state;
    const fc_kernels *k = stage->plan->kernels;
    const fc_place places[FC_MAP_OPERANDS] = {stage->at.other[0], stage->at.other[1], stage->at.other[2], stage->at.src,
                                              stage->at.dst};
    const int64_t first = index * p->per_task, end = fc_min(first + p->per_task, p->blocks);
    int64_t at[FC_RANK + 2], offset[FC_MAP_OPERANDS];
    block b;
    for (int o = 0; o < FC_MAP_OPERANDS; o++) {
        b.at[o] = fc_operand(call, places[o]);
        offset[o] = p->operand[o].start;
    }
    int64_t rest = first;
    for (int i = p->grid - 1; i >= 0; i--) {
        at[i] = rest % p->count[i];
        rest /= p->count[i];
        for (int o = 0; o < FC_MAP_OPERANDS; o++) offset[o] += at[i] * p->operand[o].step[i];
    }
    const int64_t *place = at + p->grid - 2;
    char *base[FC_MAP_OPERANDS];
    memcpy(base, b.at, sizeof base);
    for (int64_t i = first; i < end; i++) {
        b.rows = fc_min(p->block[0], p->size[0] - place[0] * p->block[0]);
        b.columns = fc_min(p->block[1], p->size[1] - place[1] * p->block[1]);
        for (int o = 0; o < FC_MAP_OPERANDS; o++)
            if (base[o]) b.at[o] = base[o] + offset[o] * k->element;
        run_block(p, k, &b, i == first, fc_own_scratch(call, thread));
        for (int axis = p->grid - 1; axis >= 0; axis--) {
            const int carries = ++at[axis] == p->count[axis];
            for (int o = 0; o < FC_MAP_OPERANDS; o++)
                offset[o] += (1 - (carries ? p->count[axis] : 0)) * p->operand[o].step[axis];
            if (!carries) break;
            at[axis] = 0;
        }
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const map_plan *p = plan->state;
    if (p->blocks == 0) return;
    list->schedule->exact = 1; // sigmoid(-100) is there in float32
    fc_list_scratch(list, 0, p->scratch);
    fc_list_stage(list, plan, task, fc_ceil_div(p->blocks, p->per_task), NULL);
}

static const fc_kind kind = {
    .name = "map",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = stages,
};

const fc_kind *const fc_kinds_map[] = {&kind, NULL};
