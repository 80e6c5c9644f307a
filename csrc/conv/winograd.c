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
// V and M would be gigabytes for large images, so tiles are taken in chunks, in one of three ways:
//
//   fused     each thread takes a chunk whose V stays in its L2, and then, for one block of nr output channels after the
//             other, through multiplication and output: M is small. U streams by once per chunk, from L3 or beyond,
//             asked for one block ahead of its use.
//   staged    all threads share a large chunk and go through the stages together. U is read once per chunk, V and M
//             travel through L3. For layers of so many channels that V of a few tiles fills an L2.
//   passing   of few tiles, in a call that has weights for itself alone: all threads share V, and each takes a block of nr
//             output channels, transforms its weights, some input channels at a time, and multiplies them from its L2. U,
//             which takes longer to write and to read than its products, never exists (512 -> 512 at 14x14, once, on two
//             threads: 6.6 -> 3.0 ms).
//
// The arithmetic of a tile is the same, but for the blocks in which it is summed in passing.
//
// What is not finite in a tile's input, or overflows on its way, would spoil the whole tile.  The output kernel sums such
// tiles directly, for which the weights are packed a second time as they are: a quarter more for F(4 x 4, 3 x 3).
// (Solving U for them, or a bit per weight for those that are zero, would not give back weights that are not finite.)
#include "conv/winograd_plan.h"

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
static int64_t tile_bytes(const fc_winograd *w, const fc_kernels *k) {
    return w->form.points * (w->pitch + w->parts * w->gemm->nr) * k->element;
}

// What V and one block of M of a thread's chunk may take of its L2, and those that all threads share of L3.
static int64_t fused_bytes(const fc_machine *machine) { return machine->l2 / 8 * 5; }
static int64_t staged_bytes(const fc_machine *machine) { return machine->l3 / 8 * 3; }

// Of few tiles U takes far longer to write and to read than to compute: a task transforms the weights of one block of output
// channels, some input channels at a time, as many as leave U and M in its L2.  Sums of M come in blocks of so many, too: that
// would be seen in the bits of an image, by itself and in a batch.
static int64_t passing_channels(const fc_request *r, const fc_winograd *w) {
    const fc_problem *p = r->op->problem;
    if (!r->options->borrows || r->options->batch_invariant || !fc_winograd_whole(p, &w->form)) return 0;
    const int64_t step = w->form.points * w->gemm->nr * r->kernels->element; // of U by channels, and of M by tiles
    const int64_t room = fused_bytes(&r->options->machine) / step, channels = (room - w->tiles) / 16 * 16;
    if (w->tiles > room / 2 || channels < 16 || step * p->in_channels * w->parts < r->options->machine.l2) return 0;
    return fc_min(channels, p->in_channels);
}

static fc_winograd shape_of(const fc_request *r, int64_t m) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    fc_winograd w = {.form = fc_winograd_form_of(p, m), .gemm = &k->gemm_channels};
    w.depth = fc_winograd_blocks(&w.form) * p->in_channels;
    w.tiles_h = fc_ceil_div(p->axis[1].out, w.form.sides == 2 ? m : 1);
    w.tiles_w = fc_ceil_div(p->axis[2].out, m);
    w.tiles = p->batch * p->axis[0].out * w.tiles_h * w.tiles_w;
    w.pitch = fc_odd_lines(w.depth);
    w.parts = fc_ceil_div(p->out_channels, w.gemm->nr);
    const fc_machine *machine = &r->options->machine;
    const int64_t fused = fused_bytes(machine) / (w.form.points * (w.pitch + w.gemm->nr) * k->element);
    w.fused = fused >= w.gemm->mr;
    w.most = w.fused ? fused / w.gemm->mr * w.gemm->mr : fc_max(1, staged_bytes(machine) / tile_bytes(&w, k));
    w.passing = passing_channels(r, &w);
    return w;
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
    const fc_winograd w = shape_of(r, m);
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

// Images whose channels are no neighbours are transposed on their way, in registers, there and back.  Where columns are none either, as
// in images that are turned or phases of dilated ones, they are gathered element by element, a cache line for each or for
// some; each takes twice as long where they exceed L2 by far.
static double transposing(const fc_request *r, const fc_winograd *w) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const int64_t m = w->form.m, below = w->form.sides == 2 ? w->form.alpha : 1, tall = w->form.sides == 2 ? m : 1;
    const int64_t blocks = fc_winograd_blocks(&w->form);
    double turned = 0, apart = 0; // vectors, elements
    if (p->src.channel != 1) {
        turned += (double)(m * blocks * fc_ceil_div(p->in_channels, k->vl) * below);
        apart += fc_cost_apart(&p->src) * (double)(w->form.alpha * blocks * p->in_channels * below);
    }
    if (p->dst.channel != 1) {
        turned += (double)(m * fc_ceil_div(p->out_channels, k->vl) * tall) / (p->pooled ? 4 : 1);
        apart += fc_cost_apart(&p->dst) * (double)(m * p->out_channels * tall);
    }
    if (image_bytes(p, k) > 4 * (double)r->options->machine.l2) apart *= 2;
    const double tiles = (double)(w->tiles * p->groups);
    return tiles * turned * c->copied + fc_cost_elements(tiles * apart, c);
}

static double cost(const fc_request *r, int64_t m) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const fc_winograd w = shape_of(r, m);
    const double points = (double)w.form.points, tiles = (double)(w.tiles * p->groups);
    const double out = (double)(w.parts * w.gemm->nr);
    const double rows = (double)fc_min(w.most, w.gemm->mr), short_rows = rows / fmax(rows, 4.0);
    // A vector of input channels that is not whole takes twice the time where these are neighbours, and of a phase three times.
    const int64_t more = w.form.stride > 1 ? 2 : p->src.channel == 1;
    const int64_t in = fc_ceil_div(p->in_channels, k->vl) + (p->in_channels % k->vl ? more : 0);
    const double vectors =
        points * tiles * (double)(fc_winograd_blocks(&w.form) * in + fc_ceil_div(p->out_channels, k->vl));
    const double weights = points * (double)w.depth * out * (double)(p->groups * k->element);
    const double passes = (double)fc_ceil_div(w.tiles, fc_max(1, w.most));
    const double travel = w.fused ? 0.0 : c->staged * 2.0 * vectors * (double)(k->vl * k->element);
    // Half a vector is multiplied, but tiles are transformed by whole ones.
    const double lanes = fmax((double)k->vl, fc_cost_lanes(p->out_channels, w.gemm, k, &r->options->machine));
    const double macs = fc_cost_macs(points * tiles * (double)w.depth * lanes, k, c) / short_rows;
    const double products = points * tiles / fmin((double)w.gemm->mr, (double)fc_max(1, w.tiles)) * (double)w.parts;
    const double streams = w.passing ? 0 : passes * fc_cost_weights(weights, r->options);
    const double seconds = 3 * c->fixed + c->product * products + fmax(macs, streams) + c->transform * vectors +
                           transposing(r, &w) + travel +
                           fc_cost_images((double)p->batch * image_bytes(p, k), r->options);
    // Phases take up to a tenth more where images come from beyond the caches; and a gain of less than that is not worth
    // weights of eight to twelve times the bytes.
    return w.form.stride == 2 ? 1.08 * seconds : seconds;
}

// Each pair of an input and an output channel, in all points of a tile, which go to memory but in passing.
static double packing(const fc_request *r, int64_t m) {
    const fc_problem *p = r->op->problem;
    const fc_winograd w = shape_of(r, m);
    const double pairs = (double)p->groups * (double)p->out_channels * (double)w.depth;
    return pairs * (double)w.form.points * r->options->costs.pack_point * (w.passing ? 0.7 : 1);
}

static fc_status layout(fc_plan *plan, const fc_request *r, int64_t m) {
    const fc_problem *p = &plan->problem;
    fc_winograd *w = plan->state = malloc(sizeof *w);
    if (!w) return FC_NO_MEMORY;
    *w = shape_of(r, m);
    plan->packing[0] = w->form.r;
    plan->packing[1] = w->form.sides;
    plan->packing[2] = w->form.stride;
    const int64_t bias = p->groups * w->parts * w->gemm->nr * plan->kernels->element;
    const int64_t weights = p->groups * w->parts * (fc_winograd_u_part(w) + fc_winograd_taps_part(plan));
    plan->packed_bytes = (size_t)bias + (w->passing ? sizeof(void *) : (size_t)(weights * plan->kernels->element));
    return FC_OK;
}

static const char *form(const fc_plan *plan) {
    const fc_winograd *w = fc_winograd_of(plan);
    return w->passing ? "in passing" : w->fused ? "fused" : "staged";
}

#define FC_WINOGRAD(m_, traits_)                                                                                       \
    static const char *refuse_f##m_(const fc_request *r) { return refuse(r, m_); }                                     \
    static double cost_f##m_(const fc_request *r) { return cost(r, m_); }                                              \
    static double packing_f##m_(const fc_request *r) { return packing(r, m_); }                                        \
    static fc_status layout_f##m_(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {                      \
        (void)message;                                                                                                 \
        return layout(plan, r, m_);                                                                                    \
    }                                                                                                                  \
    const fc_kind fc_kind_winograd_f##m_ = {                                                                           \
        .name = "winograd_f" #m_,                                                                                      \
        .traits = FC_SERVES_FORWARD | FC_INEXACT | traits_,                                                            \
        .rows = m_,                                                                                                    \
        .refuse = refuse_f##m_,                                                                                        \
        .cost = cost_f##m_,                                                                                            \
        .packing = packing_f##m_,                                                                                      \
        .layout = layout_f##m_,                                                                                        \
        .pack = fc_winograd_pack,                                                                                      \
        .stages = fc_winograd_stages,                                                                                  \
        .form = form,                                                                                                  \
    };

FC_WINOGRAD(2, FC_POOLS)
FC_WINOGRAD(3, 0)
FC_WINOGRAD(4, FC_POOLS)
FC_WINOGRAD(6, FC_POOLS | FC_BY_NAME)
