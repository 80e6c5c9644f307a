// SPDX-License-Identifier: BSD-3-Clause
//
// fold.h - folding any axes of an array, once or twice, and spreading what was found over it: reductions, norms, softmax.
//
// Axes that follow each other in memory become one.  The axis whose elements adjoin gives the lanes of vectors.  A block
// of work has some results side by side: where that axis is kept, along it, and fold_columns folds them; where it is
// folded, along the next kept axis, and fold_all does.  The elements of a block are cut into chunks that depend on the
// problem alone; what comes of them is joined in their order, so that neither threads nor the way through the work change
// a bit.
#ifndef FC_FOLD_H
#define FC_FOLD_H

#include "core/family.h"
#include "core/plan.h"

enum { FC_FOLD_CHUNK = 16384, FC_FOLD_TASK = 16384 }; // elements

// How the axes were found to lie.
typedef struct fc_folding {
    fc_fold_axis lane, row;       // of a call of a kernel: its columns and its rows, the latter folded
    fc_fold_axis side;            // of the results of a block: the lane, or the kernel's groups
    fc_fold_axis kept[FC_RANK];   // the other axes, of blocks
    fc_fold_axis folded[FC_RANK]; // and of chunks
    int kept_rank, folded_rank;
    int over_lanes;                // side is the lane
    int64_t width, widths;         // results of a block, and blocks side by side
    int64_t rows, row_parts;       // rows of a chunk, and chunks below each other
    int64_t columns, column_parts; // as width and widths, of chunks, unless over lanes
    int64_t blocks, chunks, count; // count: elements of one result
} fc_folding;

// A chunk of a block: where it lies, as elements behind the tensors, and its extent.
typedef struct fc_piece {
    int64_t src, dst, wei, groups, rows, columns;
} fc_piece;

// The rules of axes, for checks.
fc_status fc_fold_check(const fc_fold_axis *axes, int rank, int dtype, char message[FC_MESSAGE]);
// Leaves out axes of one element and joins those that follow each other; returns how many are left, by falling stride.
int fc_fold_joined(fc_fold_axis *out, const fc_fold_axis *axes, int rank);
// passes: how often an element is read.
fc_folding fc_folding_of(const fc_fold_axis *axes, int rank, int64_t vl, int passes);
fc_piece fc_fold_piece(const fc_folding *folding, int64_t block, int64_t chunk);

// What a kind does: its folds, what it makes of each total, and whether and how that is spread.
typedef struct fc_fold_step {
    fc_fold_kind kind;
    int keeps; // of FC_FOLD_EXP: writes the exponentials
} fc_fold_step;

typedef struct fc_fold_plan {
    fc_folding folding;
    fc_fold_step step[2];
    int steps;
    int results; // written to dst: 0, the centres, or the factors too, these `second` elements behind
    int apart;   // the centres lie side by side, `second` elements behind what a step keeps
    int64_t second;
    double low, high;              // of FC_FOLD_THROUGH, whose mask is other[0], laid out by `wei`
    int spreads, scales, subtract; // of fc_spread_work, from what was kept if the last step keeps
    // After a step: centre and factor of `width` results, from their totals and what was there before.
    void (*conclude)(const fc_plan *plan, int step, const double *total, int64_t width, double *centre, double *factor);
} fc_fold_plan;

// Verbs that the kinds share; plan->state is an fc_fold_plan.
double fc_fold_cost(const fc_folding *folding, const fc_kernels *kernels, int passes, int exponentials);
void fc_fold_stages(const fc_plan *plan, int threads, fc_list *list);

#endif
