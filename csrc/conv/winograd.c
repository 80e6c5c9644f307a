// SPDX-License-Identifier: BSD-3-Clause
//
// winograd.c - convolutions of stride 1 and 2 by F(m, r): m + r - 1 multiplications where the direct sum has m r, and by
// F(m x m, r x r) the square of that.
//
//                           F(2,3)  F(3,3)  F(4,3)  F(6,3)  F(2,5)  F(3,2)  F(4,2)
//     one side: points      4       5       6       8       6       4       5
//               ratio       1.5     1.8     2       2.25    1.67    1.5     1.6
//     two sides: points     16      25      36      64      36      16      25
//               ratio       2.25    3.24    4       5.06    2.78    2.25    2.56
//
//   input     V[point][tile][block of taps][channel] = B^T d B
//   multiply  M[point][tile][out channel]            = V[point] * U[point], a GEMM per point
//   output    dst                                    = A^T M A + bias, residual, activation, or the maxima of 2 x 2 of those
//
// Rows and columns are transformed where the kernel has several taps along both and outputs are as far apart, else rows
// alone.  All other taps are more input channels: those of further axes, and the blocks of r taps that a longer kernel is
// cut into, each of which reads the image that much further on.  Their sums meet before the output transform.
//
// Outputs two columns apart see even taps in one phase of the columns and odd taps in the other: two kernels of half as
// many taps, which are blocks, too.  Of 3 x 3 taps the four blocks are 2 x 2, seven of whose sixteen taps are zero; by
// F(4 x 4, 2 x 2) they take 100 multiplications for sixteen outputs instead of 144.
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
//
// What is not finite in a tile's input, or overflows on its way, would spoil the whole tile.  The output kernel sums such
// tiles directly, for which the weights are packed a second time as they are: a quarter more for F(4 x 4, 3 x 3).
// (Solving U for them, or a bit per weight for those that are zero, would not give back weights that are not finite.)
#include "conv/winograd.h"
#include "conv/activate.h"
#include "kernels/winograd_points.h"

enum { FC_WINOGRAD_BLOCK_K = 512 };
enum { FC_LINE = 16 }; // floats of a cache line

// The state of a plan.
typedef struct winograd {
    fc_winograd_form form;
    const fc_gemm_kernel *gemm; // over channels: tiles for rows
    int64_t depth;              // of the products: blocks of taps times input channels
    int64_t tiles_h, tiles_w, tiles;
    int64_t pitch; // of V from tile to tile: depth, padded
    int64_t parts; // blocks of nr output channels
    int64_t most;  // tiles per chunk at most
    int fused;     // a thread takes a chunk through all stages, or all threads share each stage
} winograd;

static const winograd *winograd_of(const fc_plan *plan) { return plan->state; }

int64_t fc_odd_lines(int64_t elements) {
    const int64_t rounded = fc_round_up(elements, FC_LINE);
    return rounded / FC_LINE % 2 ? rounded : rounded + FC_LINE;
}

// Whether an axis can be a side, of outputs `stride` apart.
static int is_side(const fc_axis *a, int64_t stride) {
    return a->kernel > stride && a->stride == stride && a->dilation == 1;
}

fc_winograd_form fc_winograd_form_of(const fc_problem *p, int64_t m) {
    const int64_t stride = p->axis[2].stride;
    const int two = is_side(&p->axis[1], stride);
    // Taps of a phase.
    const int64_t columns = fc_ceil_div(p->axis[2].kernel, stride);
    const int64_t rows = two ? fc_ceil_div(p->axis[1].kernel, stride) : columns;
    const int even = (rows == 2 || rows == 4) && (columns == 2 || columns == 4), five = rows == 5 && columns == 5;
    const int64_t r = (m == 3 || m == 4) && even ? 2 : m == 2 && five ? 5 : 3;
    const int64_t alpha = m + r - 1;
    return (fc_winograd_form){
        .m = m,
        .r = r,
        .alpha = alpha,
        .sides = two ? 2 : 1,
        .stride = stride,
        .points = two ? alpha * alpha : alpha,
        .blocks = {p->axis[0].kernel, two ? stride * fc_ceil_div(rows, r) : p->axis[1].kernel,
                   stride * fc_ceil_div(columns, r)},
    };
}

// A tile on its way through the stages: V, and M of all output channels.
static int64_t tile_bytes(const winograd *w, const fc_kernels *k) {
    return w->form.points * (w->pitch + w->parts * w->gemm->nr) * k->element;
}

// What V and one block of M of a thread's chunk may take of its L2, and those that all threads share of L3.
static int64_t fused_bytes(const fc_machine *machine) { return machine->l2 / 8 * 5; }
static int64_t staged_bytes(const fc_machine *machine) { return machine->l3 / 8 * 3; }

static winograd shape_of(const fc_problem *p, const fc_kernels *k, const fc_machine *machine, int64_t m) {
    winograd w = {.form = fc_winograd_form_of(p, m), .gemm = &k->gemm_channels};
    w.depth = fc_winograd_blocks(&w.form) * p->in_channels;
    w.tiles_h = fc_ceil_div(p->axis[1].out, w.form.sides == 2 ? m : 1);
    w.tiles_w = fc_ceil_div(p->axis[2].out, m);
    w.tiles = p->batch * p->axis[0].out * w.tiles_h * w.tiles_w;
    w.pitch = fc_odd_lines(w.depth);
    w.parts = fc_ceil_div(p->out_channels, w.gemm->nr);
    const int64_t fused = fused_bytes(machine) / (w.form.points * (w.pitch + w.gemm->nr) * k->element);
    w.fused = fused >= w.gemm->mr;
    w.most = w.fused ? fused / w.gemm->mr * w.gemm->mr : fc_max(1, staged_bytes(machine) / tile_bytes(&w, k));
    return w;
}

// Tiles of a chunk: as many as may be, in chunks of even size, and as many chunks for each thread.
static int64_t chunk_of(const winograd *w, int64_t groups, int threads) {
    int64_t chunks = fc_max(1, fc_ceil_div(w->tiles, w->most));
    if (w->fused && groups % threads && chunks < 16 * threads) chunks = fc_round_up(chunks, threads);
    return fc_max(1, fc_ceil_div(w->tiles, chunks));
}

const char *fc_winograd_refuses(const fc_problem *p, int64_t stride) {
    const fc_axis *w = &p->axis[2];
    if (p->types.accumulator != FC_F32) return "float64 asks for more accuracy than Winograd's transforms keep";
    if (w->stride > stride) return stride == 1 ? "only stride 1 along rows" : "only strides 1 and 2 along rows";
    if (w->dilation != 1) return "only dilation 1 along rows";
    if (w->kernel == 1) return "only kernels of two columns or more";
    return w->kernel <= w->stride ? "only kernels that are longer than the stride" : NULL;
}

static const char *refuse(const fc_request *r, int64_t m) {
    const fc_problem *p = r->op->problem;
    const char *const refusal = fc_winograd_refuses(p, 2);
    if (refusal) return refusal;
    const winograd w = shape_of(p, r->kernels, &r->options->machine, m);
    if (p->pooled && w.form.sides == 1) return "rows that are transformed one by one are not pooled as they are stored";
    if (!w.fused && tile_bytes(&w, r->kernels) > staged_bytes(&r->options->machine))
        return "one tile of so many taps and channels exceeds its share of the third-level cache";
    return NULL;
}

// Of an image and its result.
static double image_bytes(const fc_problem *p, const fc_kernels *k) {
    return (double)(p->groups * k->element) * (double)(p->in_channels * p->axis[0].in * p->axis[1].in * p->axis[2].in +
                                                       p->out_channels * fc_positions(p) / (p->pooled ? 4 : 1));
}

// How much of a cache line there is from column to column, if they are no neighbours.
static double apart_by(const fc_view *view) {
    const int64_t step = llabs(view->axis[2]);
    return step == 1 ? 0 : fmin(1, (double)step / FC_LINE);
}

// Images whose channels are no neighbours are transposed on their way, there and back.  Where columns are none either, as
// in images that are turned or phases of dilated ones, they are gathered element by element, a cache line for each or for
// some; each takes twice as long where they exceed L2 by far.
static double transposing(const fc_request *r, const winograd *w) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const int64_t m = w->form.m, below = w->form.sides == 2 ? w->form.alpha : 1, tall = w->form.sides == 2 ? m : 1;
    const int64_t blocks = fc_winograd_blocks(&w->form);
    double turned = 0, apart = 0; // vectors, elements
    if (p->src.channel != 1) {
        turned += (double)(m * blocks * fc_ceil_div(p->in_channels, k->vl) * below);
        apart += apart_by(&p->src) * (double)(w->form.alpha * blocks * p->in_channels * below);
    }
    if (p->dst.channel != 1) {
        turned += (double)(m * fc_ceil_div(p->out_channels, k->vl) * tall) / (p->pooled ? 4 : 1);
        apart += apart_by(&p->dst) * (double)(m * p->out_channels * tall);
    }
    if (image_bytes(p, k) > 4 * (double)r->options->machine.l2) apart *= 2;
    const double tiles = (double)(w->tiles * p->groups);
    return fc_cost_turned(tiles * turned, c) + fc_cost_elements(tiles * apart, c);
}

static double cost(const fc_request *r, int64_t m) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const winograd w = shape_of(p, k, &r->options->machine, m);
    const double points = (double)w.form.points, tiles = (double)(w.tiles * p->groups);
    const double out = (double)(w.parts * w.gemm->nr);
    const double rows = (double)fc_min(w.most, w.gemm->mr), short_rows = rows / fmax(rows, 4.0);
    // A vector of input channels that is not whole takes about twice the time, and of a phase three times.
    const int64_t in = fc_ceil_div(p->in_channels, k->vl) + (p->in_channels % k->vl ? w.form.stride : 0);
    const double vectors =
        points * tiles * (double)(fc_winograd_blocks(&w.form) * in + fc_ceil_div(p->out_channels, k->vl));
    const double weights = points * (double)w.depth * out * (double)(p->groups * k->element);
    const double passes = (double)fc_ceil_div(w.tiles, fc_max(1, w.most));
    const double travel = w.fused ? 0.0 : c->staged * 2.0 * vectors * (double)(k->vl * k->element);
    // Half a vector is multiplied, but tiles are transformed by whole ones.
    const double lanes = fmax((double)k->vl, fc_cost_lanes(p->out_channels, w.gemm, k, &r->options->machine));
    const double macs = fc_cost_macs(points * tiles * (double)w.depth * lanes, k, c) / short_rows;
    const double products = points * tiles / fmin((double)w.gemm->mr, (double)fc_max(1, w.tiles)) * (double)w.parts;
    const double seconds = 3 * c->fixed + c->product * products +
                           fmax(macs, passes * fc_cost_weights(weights, r->options)) + c->transform * vectors +
                           transposing(r, &w) + travel +
                           fc_cost_images((double)p->batch * image_bytes(p, k), r->options);
    // Phases take up to a tenth more where images come from beyond the caches; and a gain of less than that is not worth
    // weights of eight to twelve times the bytes.
    return w.form.stride == 2 ? 1.08 * seconds : seconds;
}

// Each pair of an input and an output channel, in all points of a tile.
static double packing(const fc_request *r, int64_t m) {
    const fc_problem *p = r->op->problem;
    const fc_winograd_form form = fc_winograd_form_of(p, m);
    const double pairs = (double)p->groups * (double)p->in_channels * (double)p->out_channels;
    return pairs * (double)(form.points * fc_winograd_blocks(&form)) * r->options->costs.pack_point;
}

// U of one block of output channels, and from point to point: a kernel's points are written together, and would throw
// each other out of caches at distances that are powers of two.
static int64_t u_point(const winograd *w) { return fc_odd_lines(w->depth * w->gemm->nr); }
static int64_t u_part(const winograd *w) { return w->form.points * u_point(w); }

static fc_status layout(fc_plan *plan, const fc_machine *machine, int64_t m) {
    const fc_problem *p = &plan->problem;
    winograd *w = plan->state = malloc(sizeof *w);
    if (!w) return FC_NO_MEMORY;
    *w = shape_of(p, plan->kernels, machine, m);
    plan->packing[0] = w->form.r;
    plan->packing[1] = w->form.sides;
    plan->packing[2] = w->form.stride;
    plan->packed_bytes = (size_t)(p->groups * w->parts * (w->gemm->nr * (1 + p->in_channels * fc_taps(p)) + u_part(w)) *
                                  plan->kernels->element);
    return FC_OK;
}

// Elements between points of V and of M.
static int64_t v_point(const winograd *w, int64_t count) { return fc_odd_lines(count * w->pitch); }
static int64_t m_point(const fc_plan *plan, int64_t count) { return fc_odd_lines(count * winograd_of(plan)->gemm->nr); }

static size_t v_bytes(const fc_plan *plan, int64_t chunk) {
    const winograd *w = winograd_of(plan);
    return fc_align((size_t)(w->form.points * v_point(w, chunk) * plan->kernels->element));
}

// Of one block of output channels.
static size_t m_bytes(const fc_plan *plan, int64_t chunk) {
    return fc_align((size_t)(winograd_of(plan)->form.points * m_point(plan, chunk) * plan->kernels->element));
}

// ---------------------------------------------------------------------------------------------------------- weights

typedef struct pack_job {
    const fc_plan *plan;
    const float *wei;
    float *weights; // U [group][block of nr channels][point][k][nr], points u_point apart
    float *taps;    // [group][block of nr channels][in channel][tap][nr]
} pack_job;

const double *fc_winograd_g(const fc_winograd_form *form) {
    static const double g23[] = FC_F2_3_G, g33[] = FC_F3_3_G, g43[] = FC_F4_3_G, g63[] = FC_F6_3_G;
    static const double g25[] = FC_F2_5_G, g32[] = FC_F3_2_G, g42[] = FC_F4_2_G;
    if (form->r == 5) return g25;
    if (form->r == 2) return form->m == 3 ? g32 : g42;
    return form->m == 2 ? g23 : form->m == 3 ? g33 : form->m == 4 ? g43 : g63;
}

// 1 or -1 where the kernel is one block without zeros, whose taps adjoin forwards or, as in gradients, backwards.
static int whole_order(const fc_problem *p, const fc_winograd_form *form) {
    const int64_t step = p->wei.axis[2], down = form->sides == 2 ? form->r : 1;
    if (fc_winograd_blocks(form) > 1 || fc_taps(p) != down * form->r || (step != 1 && step != -1)) return 0;
    return down == 1 || p->wei.axis[1] == step * form->r ? (int)step : 0;
}

static void pack_task(void *context, int64_t task, int thread) {
    (void)thread;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_problem *p = &plan->problem;
    const winograd *w = winograd_of(plan);
    const int64_t nr = w->gemm->nr, part = task % w->parts, group = task / w->parts;
    const fc_winograd_weights work = {
        .problem = p,
        .wei = job->wei + group * p->wei.group + part * nr * p->wei.outer,
        .channels = fc_min(nr, p->out_channels - part * nr),
        .whole = whole_order(p, &w->form),
        .form = w->form,
        .g = fc_winograd_g(&w->form),
        .points = job->weights + task * u_part(w),
        .point = u_point(w),
        .taps = job->taps + task * p->in_channels * fc_taps(p) * nr,
    };
    plan->kernels->winograd_weights(&work);
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const winograd *w = winograd_of(plan);
    const int64_t row = w->parts * w->gemm->nr;
    float *padded = packed;
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t o = 0; o < row; o++)
            *padded++ = bias && o < p->out_channels ? ((const float *)bias)[g * p->out_channels + o] : 0.0f;
    pack_job job = {plan, wei, padded, padded + p->groups * w->parts * u_part(w)};
    const double seconds = 8e-9 * (double)(p->groups * row * w->depth);
    fc_parallel(p->groups * w->parts, fc_worthwhile_threads(seconds, threads), pack_task, &job);
    return FC_OK;
}

// ----------------------------------------------------------------------------------------------------------- stages

// A chunk of tiles of one group on its way through the stages.
typedef struct winograd_chunk {
    const fc_plan *plan;
    const char *src, *weights, *taps, *bias, *residual;
    char *dst, *v, *m;
    int64_t first, count;
} winograd_chunk;

static fc_winograd_tiles stage_of(const winograd_chunk *c, int64_t tile0, int64_t tile1) {
    const winograd *w = winograd_of(c->plan);
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
    const winograd *w = winograd_of(c->plan);
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    int64_t taps[FC_AXES];
    fc_winograd_block_at(&w->form, block, taps);
    for (int i = 0; i < FC_AXES; i++) work.shift[i] = taps[i] * p->axis[i].dilation;
    work.src = c->src;
    work.channel = channel0;
    work.channels = channel1 - channel0;
    work.points = c->v + (tile0 * w->pitch + block * p->in_channels) * k->element;
    work.point = v_point(w, c->count);
    work.pitch = w->pitch;
    k->winograd_input(&work);
}

// M[point] of one block of output channels; `m` is the block's.
static void multiply_stage(const winograd_chunk *c, int64_t point, int64_t part, char *m) {
    const winograd *w = winograd_of(c->plan);
    const int64_t zero = 0, rows = fc_ceil_div(c->count, w->gemm->mr), element = c->plan->kernels->element;
    const char *v = c->v + point * v_point(w, c->count) * element;
    const char *u = c->weights + (part * u_part(w) + point * u_point(w)) * element;
    const int64_t columns = fc_min(w->gemm->nr, c->plan->problem.out_channels - part * w->gemm->nr);
    fc_gemm_tile tile = {.columns = columns, .a_row = w->pitch, .segments = 1, .a_segment = &zero};
    tile.ahead_step = fc_ceil_div(w->gemm->nr * element, rows);
    m += point * m_point(c->plan, c->count) * element;
    for (int64_t k0 = 0; k0 < w->depth; k0 += FC_WINOGRAD_BLOCK_K) {
        tile.depth = fc_min(FC_WINOGRAD_BLOCK_K, w->depth - k0);
        tile.first = k0 == 0;
        tile.b = u + k0 * w->gemm->nr * element;
        tile.ahead = (const char *)tile.b + tile.depth * w->gemm->nr * element;
        for (int64_t r = 0; r < rows; r++) {
            const int64_t t0 = r * c->count / rows, t1 = (r + 1) * c->count / rows;
            tile.m = t1 - t0;
            tile.a = v + (t0 * w->pitch + k0) * element;
            tile.sums = m + t0 * w->gemm->nr * element;
            w->gemm->run(&tile);
            tile.ahead = (const char *)tile.ahead + tile.depth * tile.ahead_step;
        }
    }
}

// The outputs of `work`, which have been stored, one row of tiles after the other.
static void activate(const winograd_chunk *c, const fc_winograd_tiles *work) {
    const fc_problem *p = &c->plan->problem;
    const int64_t m = work->form.m, rows = work->form.sides == 2 ? m : 1, end = work->tile + work->count;
    for (int64_t tile = work->tile, tiles; tile < end; tile += tiles) {
        const int64_t line = tile / work->tiles_w, plane = line / work->tiles_h;
        const int64_t x = tile % work->tiles_w * m, y = line % work->tiles_h * rows;
        tiles = fc_min(end, (line + 1) * work->tiles_w) - tile;
        const int64_t at = plane / p->axis[0].out * p->dst.outer + plane % p->axis[0].out * p->dst.axis[0] +
                           y * p->dst.axis[1] + x * p->dst.axis[2] + work->channel * p->dst.channel;
        const fc_box box = {
            {work->channels, fc_min(rows, p->axis[1].out - y), fc_min(tiles * m, p->axis[2].out - x)},
            {p->dst.channel, p->dst.axis[1], p->dst.axis[2]},
        };
        fc_activate_box(c->plan, (char *)work->dst + at * c->plan->kernels->element, &box);
    }
}

static void output_stage(const winograd_chunk *c, int64_t tile0, int64_t tile1, int64_t part, const char *m) {
    const fc_kernels *k = c->plan->kernels;
    const int64_t nr = winograd_of(c->plan)->gemm->nr;
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    const fc_problem *p = &c->plan->problem;
    work.src = c->src;
    work.dst = c->dst;
    work.residual = p->pooled ? NULL : c->residual;
    work.wei = c->taps + part * p->in_channels * fc_taps(p) * nr * k->element;
    work.bias = c->bias;
    work.channel = part * nr;
    work.channels = fc_min(nr, p->out_channels - work.channel);
    work.points = (char *)m + tile0 * nr * k->element;
    work.point = m_point(c->plan, c->count);
    work.pitch = nr;
    k->winograd_output(&work);
    if (fc_activates(c->plan)) activate(c, &work);
}

// ---------------------------------------------------------------------------------------------------------- running

// Tiles [first, first + count) of a group; of a fused stage, of every task as many.
typedef struct winograd_share {
    int64_t group, first, count;
    int64_t tile_parts, channel_parts; // how a stage that threads share is cut into tasks
} winograd_share;

static winograd_chunk chunk_at(const fc_stage *stage, const fc_call *call, int64_t group, int64_t first,
                               int64_t count) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const winograd *w = winograd_of(plan);
    const int64_t element = plan->kernels->element, row = w->parts * w->gemm->nr;
    const char *packed = fc_operand(call, stage->at.wei), *residual = fc_operand(call, stage->at.residual);
    return (winograd_chunk){
        .plan = plan,
        .src = (const char *)fc_operand(call, stage->at.src) + group * p->src.group * element,
        .bias = packed + group * row * element,
        .weights = packed + (p->groups * row + group * w->parts * u_part(w)) * element,
        .taps =
            packed + (p->groups * (row + w->parts * u_part(w)) + group * p->in_channels * fc_taps(p) * row) * element,
        .residual = residual ? residual + group * p->dst.group * element : NULL,
        .dst = (char *)fc_operand(call, stage->at.dst) + group * p->dst.group * element,
        .first = first,
        .count = count,
    };
}

static void fused_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const fc_plan *plan = stage->plan;
    const winograd *w = winograd_of(plan);
    const winograd_share *share = stage->context;
    const int64_t chunks = fc_ceil_div(w->tiles, share->count), first = task % chunks * share->count;
    winograd_chunk c = chunk_at(stage, call, task / chunks, first, fc_min(share->count, w->tiles - first));
    c.v = fc_own_scratch(call, thread);
    c.m = c.v + v_bytes(plan, share->count);
    for (int64_t block = 0; block < fc_winograd_blocks(&w->form); block++)
        input_stage(&c, 0, c.count, block, 0, plan->problem.in_channels);
    for (int64_t part = 0; part < w->parts; part++) {
        for (int64_t point = 0; point < w->form.points; point++) multiply_stage(&c, point, part, c.m);
        output_stage(&c, 0, c.count, part, c.m);
    }
}

// A chunk that all threads share: V, then M of each block of output channels.
static winograd_chunk shared_chunk(const fc_stage *stage, const fc_call *call) {
    const winograd_share *share = stage->context;
    winograd_chunk c = chunk_at(stage, call, share->group, share->first, share->count);
    c.v = fc_operand(call, stage->at.shared);
    c.m = c.v + v_bytes(stage->plan, share->count);
    return c;
}

static char *m_of(const winograd_chunk *c, int64_t part) { return c->m + (size_t)part * m_bytes(c->plan, c->count); }

static void input_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk c = shared_chunk(stage, call);
    const winograd_share *share = stage->context;
    const int64_t channels = c.plan->problem.in_channels, parts = fc_ceil_div(channels, FC_INPUT_CHANNELS);
    const int64_t blocks = fc_winograd_blocks(&winograd_of(c.plan)->form);
    const int64_t channel = fc_digit(&task, parts) * FC_INPUT_CHANNELS, block = fc_digit(&task, blocks), t = task;
    input_stage(&c, t * c.count / share->tile_parts, (t + 1) * c.count / share->tile_parts, block, channel,
                fc_min(channel + FC_INPUT_CHANNELS, channels));
}

static void multiply_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk c = shared_chunk(stage, call);
    const winograd *w = winograd_of(c.plan);
    const winograd_share *share = stage->context;
    const int64_t slice = task % share->channel_parts, point = task / share->channel_parts;
    const int64_t end = (slice + 1) * w->parts / share->channel_parts;
    for (int64_t part = slice * w->parts / share->channel_parts; part < end; part++)
        multiply_stage(&c, point, part, m_of(&c, part));
}

static void output_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk c = shared_chunk(stage, call);
    const winograd_share *share = stage->context;
    const int64_t part = fc_digit(&task, winograd_of(c.plan)->parts), t = task;
    output_stage(&c, t * c.count / share->tile_parts, (t + 1) * c.count / share->tile_parts, part, m_of(&c, part));
}

static void shared_stages(const fc_plan *plan, int64_t most, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    const winograd *w = winograd_of(plan);
    const int64_t inputs = fc_winograd_blocks(&w->form) * fc_ceil_div(p->in_channels, FC_INPUT_CHANNELS);
    for (int64_t group = 0; group < p->groups; group++)
        for (int64_t first = 0; first < w->tiles; first += most) {
            winograd_share share = {.group = group, .first = first, .count = fc_min(most, w->tiles - first)};
            share.tile_parts = fc_ceil_div(share.count, w->tiles_w);
            share.channel_parts = w->form.points % threads ? fc_min(w->parts, threads) : 1;
            const void *context = fc_list_keep(list, &share, sizeof share);
            fc_list_stage(list, plan, input_task, share.tile_parts * inputs, context);
            fc_list_stage(list, plan, multiply_task, w->form.points * share.channel_parts, context);
            fc_list_stage(list, plan, output_task, share.tile_parts * w->parts, context);
        }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const winograd *w = winograd_of(plan);
    const int64_t groups = plan->problem.groups, chunk = chunk_of(w, groups, threads);
    const size_t v = v_bytes(plan, chunk), m = m_bytes(plan, chunk);
    if (!w->fused) {
        fc_list_scratch(list, v + (size_t)w->parts * m, 0);
        shared_stages(plan, chunk, threads, list);
        return;
    }
    fc_list_scratch(list, 0, v + m);
    const winograd_share share = {.count = chunk};
    const void *context = fc_list_keep(list, &share, sizeof share);
    fc_list_stage(list, plan, fused_task, fc_ceil_div(w->tiles, chunk) * groups, context);
}

static const char *form(const fc_plan *plan) { return winograd_of(plan)->fused ? "fused" : "staged"; }

#define FC_WINOGRAD(m_, traits_)                                                                                       \
    static const char *refuse_f##m_(const fc_request *r) { return refuse(r, m_); }                                     \
    static double cost_f##m_(const fc_request *r) { return cost(r, m_); }                                              \
    static double packing_f##m_(const fc_request *r) { return packing(r, m_); }                                        \
    static fc_status layout_f##m_(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {                      \
        (void)message;                                                                                                 \
        return layout(plan, &r->options->machine, m_);                                                                 \
    }                                                                                                                  \
    const fc_kind fc_kind_winograd_f##m_ = {                                                                           \
        .name = "winograd_f" #m_,                                                                                      \
        .traits = FC_SERVES_FORWARD | FC_INEXACT | traits_,                                                            \
        .rows = m_,                                                                                                    \
        .refuse = refuse_f##m_,                                                                                        \
        .cost = cost_f##m_,                                                                                            \
        .packing = packing_f##m_,                                                                                      \
        .layout = layout_f##m_,                                                                                        \
        .pack = pack,                                                                                                  \
        .stages = stages,                                                                                              \
        .form = form,                                                                                                  \
    };

FC_WINOGRAD(2, FC_POOLS)
FC_WINOGRAD(3, 0)
FC_WINOGRAD(4, FC_POOLS)
FC_WINOGRAD(6, FC_POOLS | FC_BY_NAME)
