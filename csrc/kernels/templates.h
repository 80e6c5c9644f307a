// SPDX-License-Identifier: BSD-3-Clause
//
// templates.h - instantiates the kernel templates of FC_PART, a file, for one ISA and the dtype of FC_BITS, 32 or 64;
// setup.py defines both, and so compiles each part of the kernels by itself.
// The including isa_*.c has included a simd header and defined FC_ISA (its name), FC_ISA_ID, FC_MR (rows of the GEMM
// tile) and FC_NV (vectors per row).
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define FC_CAT2(a, b) a##_##b
#define FC_CAT(a, b) FC_CAT2(a, b)
#define FC_CAT4_(a, b, c, d) a##_##b##_##c##_##d
#define FC_CAT4(a, b, c, d) FC_CAT4_(a, b, c, d)
#define FC_NAME(name) FC_CAT4(fc, FC_S, name, FC_ISA) // FC_NAME(gemm_pixels) is fc_f32_gemm_pixels_avx512

// Whether loops over the commonest sizes are unrolled, as bodies of their own: in float32 by vectors. For float64 and
// scalars they made half of the library and of the time to build it, for what no network does.
#define FC_KNOWN_SIZES (FC_VL > 1 && FC_BITS == 32)

// In a template: T the element, vec the vector, FC_VL its lanes, and v_op the operation on either dtype.
#define T FC_T
#define vec FC_CAT(v, FC_S)
#define FC_VL FC_CAT(FC_VL, FC_S)
#define FC_NR (FC_NV * FC_VL)
#define v_load FC_CAT(v_load, FC_S)
#define v_store FC_CAT(v_store, FC_S)
#define v_load_part FC_CAT(v_load_part, FC_S)
#define v_store_part FC_CAT(v_store_part, FC_S)
#define v_set1 FC_CAT(v_set1, FC_S)
#define v_add FC_CAT(v_add, FC_S)
#define v_sub FC_CAT(v_sub, FC_S)
#define v_mul FC_CAT(v_mul, FC_S)
#define v_fma FC_CAT(v_fma, FC_S)
#define v_fnma FC_CAT(v_fnma, FC_S)
#define v_max FC_CAT(v_max, FC_S)
#define v_min FC_CAT(v_min, FC_S)
#define v_one_nan FC_CAT(v_one_nan, FC_S)
#define v_finite FC_CAT(v_finite, FC_S)
#define v_load2 FC_CAT(v_load2, FC_S)
#define v_load2_part FC_CAT(v_load2_part, FC_S)
#define v_load_apart FC_CAT(v_load_apart, FC_S)
#define v_store_apart FC_CAT(v_store_apart, FC_S)
#define v_even FC_CAT(v_even, FC_S)
#define v_odd FC_CAT(v_odd, FC_S)
#define v_pick FC_CAT(v_pick, FC_S)
#define v_zip_low FC_CAT(v_zip_low, FC_S)
#define v_zip_high FC_CAT(v_zip_high, FC_S)
#define v_div FC_CAT(v_div, FC_S)
#define v_sqrt FC_CAT(v_sqrt, FC_S)
#define v_round FC_CAT(v_round, FC_S)
#define v_floor FC_CAT(v_floor, FC_S)
#define v_ceil FC_CAT(v_ceil, FC_S)
#define v_exponent FC_CAT(v_exponent, FC_S)
#define v_scale FC_CAT(v_scale, FC_S)
#define vmask FC_CAT(m, FC_S)
#define v_above FC_CAT(v_above, FC_S)
#define v_same FC_CAT(v_same, FC_S)
#define v_select FC_CAT(v_select, FC_S)
#define v_peak FC_CAT(v_peak, FC_S)
#define v_transpose FC_CAT(v_transpose, FC_S)
#define v_spread FC_CAT(v_spread, FC_S)
#define v_lanes FC_CAT(v_lanes, FC_S)
#define v_load_where FC_CAT(v_load_where, FC_S)
#define v_load_lanes FC_CAT(v_load_lanes, FC_S)
#define v_store_indices FC_CAT(v_store_indices, FC_S)
#define v_load_indices FC_CAT(v_load_indices, FC_S)
#define v_half FC_CAT(v_half, FC_S)
#define v_half_load FC_CAT(v_half_load, FC_S)
#define v_half_store FC_CAT(v_half_store, FC_S)
#define v_half_set1 FC_CAT(v_half_set1, FC_S)
#define v_half_add FC_CAT(v_half_add, FC_S)
#define v_half_fma FC_CAT(v_half_fma, FC_S)
#define v_half_max FC_CAT(v_half_max, FC_S)
#define v_half_min FC_CAT(v_half_min, FC_S)
#define v_half_of FC_CAT(v_half_of, FC_S)
#define v_half_load_lanes FC_CAT(v_half_load_lanes, FC_S)
#define v_half_store_part FC_CAT(v_half_store_part, FC_S)
#define v_half_whole FC_CAT(v_half_whole, FC_S)

// An address that is walked: without this the compiler keeps each multiple of a step in a register of its own, and spills.
#define FC_WALK(p) __asm__("" : "+r"(p))

// Columns of a tile of few output channels: as many lines of a plane as are found in a row.
#define FC_FEW_NR (8 * FC_VL)
// Pixels of a product whose vectors run along k: as many as hide the latency of their sums.
#define FC_ALONG_ROWS (FC_VL > 8 ? FC_VL : 8)

#define FC_INLINE static inline __attribute__((always_inline))
// A body for known sizes, beside others of its kernel: the compiler takes a fifth longer for all of them in one function.
#define FC_BODY static __attribute__((noinline))

#if FC_BITS == 32
#define FC_T float
#define FC_S f32
#define FC_DTYPE FC_F32
#else
#define FC_T double
#define FC_S f64
#define FC_DTYPE FC_F64
#endif

#include "kernels/rows.tmpl.c"

// What the parts define and the table names.
#define FC_KERNEL(type, name) extern type FC_NAME(name);
#define FC_SINGLE_KERNEL FC_KERNEL
#define FC_GEMM_KERNEL(name, ...) FC_KERNEL(fc_gemm_fn, name)
#include "kernels/kernels.inc"
#undef FC_GEMM_KERNEL
#undef FC_SINGLE_KERNEL
#undef FC_KERNEL
extern fc_pack_weights_fn FC_NAME(pack_weights);

#include FC_PART
