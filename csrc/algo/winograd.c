// SPDX-License-Identifier: BSD-3-Clause
//
// winograd.c - convolutions of stride 1 by F(m, r): m + r - 1 multiplications where the direct sum has m r, and by
// F(m x m, r x r) the square of that.
//
//                           F(2,3)  F(3,3)  F(4,3)  F(6,3)  F(2,5)  F(3,2)
//     one side: points      4       5       6       8       6       4
//               ratio       1.5     1.8     2       2.25    1.67    1.5
//     two sides: points     16      25      36      64      36      16
//               ratio       2.25    3.24    4       5.06    2.78    2.25
//
//   input     V[point][tile][block of taps][channel] = B^T d B
//   multiply  M[point][tile][out channel]            = V[point] * U[point], a GEMM per point
//   output    dst                                    = A^T M A + bias, residual, clamp
//
// Rows and columns are transformed where the kernel has several taps along both and steps by 1, else rows alone.  All
// other taps are more input channels: those of further axes, and the blocks of r taps that a longer kernel is cut into,
// each of which reads the image that much further on.  Their sums meet before the output transform.
//
// V and M would be gigabytes for large images, so tiles are taken in chunks, in one of two ways:
//
//   fused     each thread takes a chunk whose V stays in its L2, and then, for one block of nr output channels after the
//             other, through multiplication and output: M is small. U streams by once per chunk, from L3 or beyond,
//             asked for one block ahead of its use.
//   staged    all threads share a large chunk and go through the stages together. U is read once per chunk, V and M
//             travel through L3. For layers of so many channels that V of a few tiles fills an L2.
//
// Either way the arithmetic of a tile is the same.
#include "algo/plan.h"
#include "kernels/winograd_points.h"

enum { FC_FUSED_BYTES = 640 << 10, FC_STAGED_BYTES = 12 << 20, FC_WINOGRAD_BLOCK_K = 512, FC_INPUT_CHANNELS = 64 };
enum { FC_LINE = 16 }; // floats of a cache line

// Whole cache lines, an odd number of them: planes at such distances spread over the sets of a cache.
static int64_t odd_lines(int64_t elements) {
    const int64_t rounded = fc_round_up(elements, FC_LINE);
    return rounded / FC_LINE % 2 ? rounded : rounded + FC_LINE;
}

static int steps_by_one(const fc_axis *a) { return a->kernel > 1 && a->stride == 1 && a->dilation == 1; }

// r is 3, but where a kernel of two or four taps to a side is made of 2, or one of five is 5.
static fc_winograd_form form_of(const fc_problem *p, int64_t m) {
    const int two = steps_by_one(&p->axis[1]);
    const int64_t columns = p->axis[2].kernel, rows = two ? p->axis[1].kernel : columns;
    const int even = (rows == 2 || rows == 4) && (columns == 2 || columns == 4), five = rows == 5 && columns == 5;
    const int64_t r = m == 3 && even ? 2 : m == 2 && five ? 5 : 3;
    const int64_t alpha = m + r - 1;
    return (fc_winograd_form){
        .m = m,
        .r = r,
        .alpha = alpha,
        .sides = two ? 2 : 1,
        .points = two ? alpha * alpha : alpha,
        .blocks = {p->axis[0].kernel, two ? fc_ceil_div(rows, r) : p->axis[1].kernel, fc_ceil_div(columns, r)},
    };
}

static int64_t blocks_of(const fc_winograd_form *form) { return form->blocks[0] * form->blocks[1] * form->blocks[2]; }

// A tile on its way through the stages: V, and M of all output channels.
static int64_t tile_bytes(const fc_winograd_layout *w, const fc_kernels *k) {
    return w->form.points * (w->row + w->parts * k->nr) * k->element;
}

static fc_winograd_layout shape_of(const fc_problem *p, const fc_kernels *k, int64_t m) {
    fc_winograd_layout w = {.form = form_of(p, m)};
    w.depth = blocks_of(&w.form) * p->in_channels;
    w.tiles_h = fc_ceil_div(p->axis[1].out, w.form.sides == 2 ? m : 1);
    w.tiles_w = fc_ceil_div(p->axis[2].out, m);
    w.tiles = p->batch * p->axis[0].out * w.tiles_h * w.tiles_w;
    w.row = odd_lines(w.depth);
    w.parts = fc_ceil_div(p->out_channels, k->nr);
    const int64_t fused = FC_FUSED_BYTES / (w.form.points * (w.row + k->nr) * k->element);
    w.fused = fused >= k->mr;
    w.most = w.fused ? fused / k->mr * k->mr : fc_max(1, FC_STAGED_BYTES / tile_bytes(&w, k));
    return w;
}

// Tiles of a chunk: as many as may be, in chunks of even size, and as many chunks for each thread.
static int64_t chunk_of(const fc_winograd_layout *w, int64_t groups, int threads) {
    int64_t chunks = fc_max(1, fc_ceil_div(w->tiles, w->most));
    if (w->fused && groups % threads && chunks < 16 * threads) chunks = fc_round_up(chunks, threads);
    return fc_max(1, fc_ceil_div(w->tiles, chunks));
}

static const char *refuse(const fc_problem *p, const fc_kernels *k, int64_t m) {
    if (p->dtype != FC_F32) return "float64 asks for more accuracy than Winograd's transforms keep";
    if (p->axis[2].stride != 1) return "only stride 1 along rows";
    if (p->axis[2].dilation != 1) return "only dilation 1 along rows";
    if (p->axis[2].kernel == 1) return "only kernels of two columns or more";
    const fc_winograd_layout w = shape_of(p, k, m);
    if (!w.fused && tile_bytes(&w, k) > FC_STAGED_BYTES) return "one tile of so many taps and channels exceeds 12 MiB";
    return NULL;
}

static double cost(const fc_problem *p, const fc_kernels *k, const fc_costs *c, int64_t m) {
    const fc_winograd_layout w = shape_of(p, k, m);
    const double points = (double)w.form.points, tiles = (double)(w.tiles * p->groups);
    const double out = (double)(w.parts * k->nr);
    const double rows = (double)fc_min(w.most, k->mr), short_rows = rows / fmax(rows, 4.0);
    // A vector of input channels that is not whole takes about twice the time.
    const int64_t in = fc_ceil_div(p->in_channels, k->vl) + (p->in_channels % k->vl != 0);
    const double vectors = points * tiles * (double)(blocks_of(&w.form) * in + fc_ceil_div(p->out_channels, k->vl));
    const double weights = points * (double)w.depth * out * (double)(p->groups * k->element);
    const double passes = (double)fc_ceil_div(w.tiles, fc_max(1, w.most));
    const double travel = w.fused ? 0.0 : c->staged * 2.0 * vectors * (double)(k->vl * k->element);
    const double macs = fc_cost_macs(points * tiles * (double)w.depth * out, k, c) / short_rows;
    const double products = points * tiles / fmin((double)k->mr, (double)fc_max(1, w.tiles)) * (double)w.parts;
    return 3 * c->fixed + c->product * products + fmax(macs, passes * fc_cost_weights(weights, c)) +
           c->transform * vectors + travel;
}

static int64_t points_of(const fc_problem *p, int64_t m) {
    const fc_winograd_form form = form_of(p, m);
    return form.points * blocks_of(&form);
}

static fc_status layout(fc_plan *plan, int64_t m) {
    const fc_problem *p = &plan->problem;
    plan->layout.winograd = shape_of(p, plan->kernels, m);
    const fc_winograd_layout *w = &plan->layout.winograd;
    plan->packed_bytes =
        (size_t)(p->groups * w->parts * plan->kernels->nr * (1 + w->form.points * w->depth) * plan->kernels->element);
    return FC_OK;
}

// Elements between points of V and of M.
static int64_t v_point(const fc_winograd_layout *w, int64_t count) { return odd_lines(count * w->row); }
static int64_t m_point(const fc_plan *plan, int64_t count) { return odd_lines(count * plan->kernels->nr); }

static size_t v_bytes(const fc_plan *plan, int64_t chunk) {
    const fc_winograd_layout *w = &plan->layout.winograd;
    return fc_align((size_t)(w->form.points * v_point(w, chunk) * plan->kernels->element));
}

// Of one block of output channels.
static size_t m_bytes(const fc_plan *plan, int64_t chunk) {
    return fc_align((size_t)(plan->layout.winograd.form.points * m_point(plan, chunk) * plan->kernels->element));
}

static size_t scratch(const fc_plan *plan, int threads) {
    const fc_winograd_layout *w = &plan->layout.winograd;
    const int64_t chunk = chunk_of(w, plan->problem.groups, threads);
    if (w->fused) return (size_t)threads * (v_bytes(plan, chunk) + m_bytes(plan, chunk));
    return v_bytes(plan, chunk) + (size_t)w->parts * m_bytes(plan, chunk);
}

// ---------------------------------------------------------------------------------------------------------- weights

typedef struct pack_job {
    const fc_plan *plan;
    const float *wei;
    float *weights; // U [group][block of nr channels][point][k][nr]
} pack_job;

static const double *weight_transform(const fc_winograd_form *form) {
    static const double g23[] = FC_F2_3_G, g33[] = FC_F3_3_G, g43[] = FC_F4_3_G, g63[] = FC_F6_3_G;
    static const double g25[] = FC_F2_5_G, g32[] = FC_F3_2_G;
    if (form->r == 5) return g25;
    if (form->r == 2) return g32;
    return form->m == 2 ? g23 : form->m == 3 ? g33 : form->m == 4 ? g43 : g63;
}

static void pack_task(void *context, int64_t task, int thread) {
    (void)thread;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    const int64_t nr = plan->kernels->nr, part = task % w->parts, group = task / w->parts;
    const fc_winograd_weights work = {
        .problem = p,
        .wei = job->wei + group * p->wei.group + part * nr * p->wei.outer,
        .channels = fc_min(nr, p->out_channels - part * nr),
        .whole = blocks_of(&w->form) == 1 && fc_taps(p) == (w->form.sides == 2 ? w->form.r * w->form.r : w->form.r) &&
                 fc_weights_adjoin(p),
        .form = w->form,
        .g = weight_transform(&w->form),
        .points = job->weights + task * w->form.points * w->depth * nr,
        .point = w->depth * nr,
    };
    plan->kernels->winograd_weights(&work);
}

static void pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    const int64_t row = w->parts * plan->kernels->nr;
    float *padded = packed;
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t o = 0; o < row; o++)
            *padded++ = bias && o < p->out_channels ? ((const float *)bias)[g * p->out_channels + o] : 0.0f;
    pack_job job = {plan, wei, padded};
    const double seconds = 8e-9 * (double)(p->groups * row * w->depth);
    fc_parallel(p->groups * w->parts, fc_worthwhile_threads(seconds, threads), pack_task, &job);
}

// ----------------------------------------------------------------------------------------------------------- stages

// A chunk of tiles of one group on its way through the stages.
typedef struct winograd_chunk {
    const fc_plan *plan;
    const char *src, *weights, *bias, *residual;
    char *dst, *v, *m;
    int64_t first, count;
    int64_t tile_parts, channel_parts; // staged: how a stage is cut into tasks
} winograd_chunk;

static fc_winograd_tiles stage_of(const winograd_chunk *c, int64_t tile0, int64_t tile1) {
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    return (fc_winograd_tiles){
        .problem = &c->plan->problem,
        .form = w->form,
        .tiles_h = w->tiles_h,
        .tiles_w = w->tiles_w,
        .tile = c->first + tile0,
        .count = tile1 - tile0,
    };
}

// Of one block of taps.
static void input_stage(const winograd_chunk *c, int64_t tile0, int64_t tile1, int64_t block, int64_t channel0,
                        int64_t channel1) {
    const fc_kernels *k = c->plan->kernels;
    const fc_problem *p = &c->plan->problem;
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    const int64_t across = block % w->form.blocks[2], down = block / w->form.blocks[2] % w->form.blocks[1];
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    work.src = c->src;
    work.channel = channel0;
    work.channels = channel1 - channel0;
    work.shift[0] = block / w->form.blocks[2] / w->form.blocks[1] * p->axis[0].dilation;
    work.shift[1] = down * (w->form.sides == 2 ? w->form.r : p->axis[1].dilation);
    work.shift[2] = across * w->form.r;
    work.points = c->v + (tile0 * w->row + block * p->in_channels) * k->element;
    work.point = v_point(w, c->count);
    work.row = w->row;
    k->winograd_input(&work);
}

// M[point] of one block of output channels; `m` is the block's.
static void multiply_stage(const winograd_chunk *c, int64_t point, int64_t part, char *m) {
    const fc_kernels *k = c->plan->kernels;
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    const int64_t zero = 0, rows = fc_ceil_div(c->count, k->mr), element = k->element;
    const int64_t block_bytes = w->depth * k->nr * element;
    const char *v = c->v + point * v_point(w, c->count) * element;
    const char *u = c->weights + (part * w->form.points + point) * block_bytes;
    fc_gemm_tile tile = {.columns = k->nr, .a_row = w->row, .segments = 1, .a_segment = &zero};
    tile.ahead_step = fc_ceil_div(k->nr * element, rows);
    m += point * m_point(c->plan, c->count) * element;
    for (int64_t k0 = 0; k0 < w->depth; k0 += FC_WINOGRAD_BLOCK_K) {
        tile.depth = fc_min(FC_WINOGRAD_BLOCK_K, w->depth - k0);
        tile.first = k0 == 0;
        tile.b = u + k0 * k->nr * element;
        tile.ahead = (const char *)tile.b + tile.depth * k->nr * element;
        for (int64_t r = 0; r < rows; r++) {
            const int64_t t0 = r * c->count / rows, t1 = (r + 1) * c->count / rows;
            tile.m = t1 - t0;
            tile.a = v + (t0 * w->row + k0) * element;
            tile.sums = m + t0 * k->nr * element;
            k->gemm_channels(&tile);
            tile.ahead = (const char *)tile.ahead + tile.depth * tile.ahead_step;
        }
    }
}

static void output_stage(const winograd_chunk *c, int64_t tile0, int64_t tile1, int64_t part, const char *m) {
    const fc_kernels *k = c->plan->kernels;
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    work.dst = c->dst;
    work.residual = c->residual;
    work.bias = c->bias;
    work.channel = part * k->nr;
    work.channels = fc_min(k->nr, c->plan->problem.out_channels - work.channel);
    work.points = (char *)m + tile0 * k->nr * k->element;
    work.point = m_point(c->plan, c->count);
    work.row = k->nr;
    k->winograd_output(&work);
}

// ---------------------------------------------------------------------------------------------------------- running

typedef struct winograd_job {
    winograd_chunk chunk; // of group 0; fused: without v and m
    int64_t tiles;        // per chunk
    char *scratch;
} winograd_job;

static winograd_chunk group_of(const winograd_job *job, int64_t group) {
    winograd_chunk c = job->chunk;
    const fc_problem *p = &c.plan->problem;
    const fc_winograd_layout *w = &c.plan->layout.winograd;
    const int64_t element = c.plan->kernels->element, row = w->parts * c.plan->kernels->nr;
    c.src += group * p->src.group * element;
    c.dst += group * p->dst.group * element;
    if (c.residual) c.residual += group * p->dst.group * element;
    c.bias += group * row * element;
    c.weights += group * w->form.points * row * w->depth * element;
    return c;
}

static void fused_task(void *context, int64_t task, int thread) {
    const winograd_job *job = context;
    const fc_plan *plan = job->chunk.plan;
    const fc_winograd_layout *w = &plan->layout.winograd;
    const int64_t chunks = fc_ceil_div(w->tiles, job->tiles);
    winograd_chunk c = group_of(job, task / chunks);
    c.first = task % chunks * job->tiles;
    c.count = fc_min(job->tiles, w->tiles - c.first);
    c.v = job->scratch + (size_t)thread * (v_bytes(plan, job->tiles) + m_bytes(plan, job->tiles));
    c.m = c.v + v_bytes(plan, job->tiles);
    for (int64_t block = 0; block < blocks_of(&w->form); block++)
        input_stage(&c, 0, c.count, block, 0, plan->problem.in_channels);
    for (int64_t part = 0; part < w->parts; part++) {
        for (int64_t point = 0; point < w->form.points; point++) multiply_stage(&c, point, part, c.m);
        output_stage(&c, 0, c.count, part, c.m);
    }
}

static void input_task(void *context, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk *c = context;
    const int64_t channels = c->plan->problem.in_channels, parts = fc_ceil_div(channels, FC_INPUT_CHANNELS);
    const int64_t t = task % c->tile_parts, rest = task / c->tile_parts, channel = rest % parts * FC_INPUT_CHANNELS;
    input_stage(c, t * c->count / c->tile_parts, (t + 1) * c->count / c->tile_parts, rest / parts, channel,
                fc_min(channel + FC_INPUT_CHANNELS, channels));
}

static void multiply_task(void *context, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk *c = context;
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    const int64_t share = task % c->channel_parts, point = task / c->channel_parts;
    const int64_t end = (share + 1) * w->parts / c->channel_parts;
    for (int64_t part = share * w->parts / c->channel_parts; part < end; part++)
        multiply_stage(c, point, part, c->m + (size_t)part * m_bytes(c->plan, c->count));
}

static void output_task(void *context, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk *c = context;
    const int64_t t = task % c->tile_parts, part = task / c->tile_parts;
    output_stage(c, t * c->count / c->tile_parts, (t + 1) * c->count / c->tile_parts, part,
                 c->m + (size_t)part * m_bytes(c->plan, c->count));
}

static void staged(const winograd_job *job, int threads) {
    const fc_plan *plan = job->chunk.plan;
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    for (int64_t group = 0; group < p->groups; group++)
        for (int64_t first = 0; first < w->tiles; first += job->tiles) {
            winograd_chunk c = group_of(job, group);
            c.first = first;
            c.count = fc_min(job->tiles, w->tiles - first);
            c.v = job->scratch;
            c.m = c.v + v_bytes(plan, c.count);
            c.tile_parts = fc_ceil_div(c.count, w->tiles_w);
            c.channel_parts = w->form.points % threads ? fc_min(w->parts, threads) : 1;
            fc_parallel(c.tile_parts * blocks_of(&w->form) * fc_ceil_div(p->in_channels, FC_INPUT_CHANNELS), threads,
                        input_task, &c);
            fc_parallel(w->form.points * c.channel_parts, threads, multiply_task, &c);
            fc_parallel(c.tile_parts * w->parts, threads, output_task, &c);
        }
}

static void execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                    void *scratch_memory, int threads) {
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    const int64_t row = w->parts * plan->kernels->nr;
    winograd_job job = {
        .chunk = {.plan = plan,
                  .src = src,
                  .bias = packed,
                  .weights = (const char *)packed + p->groups * row * plan->kernels->element,
                  .residual = residual,
                  .dst = dst},
        .tiles = chunk_of(w, p->groups, threads),
        .scratch = scratch_memory,
    };
    if (w->fused) fc_parallel(fc_ceil_div(w->tiles, job.tiles) * p->groups, threads, fused_task, &job);
    else staged(&job, threads);
}

#define FC_WINOGRAD(m)                                                                                                 \
    static const char *refuse_f##m(const fc_problem *p, const fc_kernels *k) { return refuse(p, k, m); }               \
    static double cost_f##m(const fc_problem *p, const fc_kernels *k, const fc_costs *c) { return cost(p, k, c, m); }  \
    static int64_t points_f##m(const fc_problem *p) { return points_of(p, m); }                                        \
    static fc_status layout_f##m(fc_plan *plan) { return layout(plan, m); }                                            \
    const fc_algorithm fc_algorithm_winograd_f##m = {                                                                  \
        "winograd_f" #m, refuse_f##m, cost_f##m, points_f##m, layout_f##m, scratch, pack, execute, NULL};

FC_WINOGRAD(2)
FC_WINOGRAD(3)
FC_WINOGRAD(4)
FC_WINOGRAD(6)
