// SPDX-License-Identifier: BSD-3-Clause
//
// convert.tmpl.c - float16 to float32, exactly, and back, rounded to nearest even: subnormals are kept, what rounds
// beyond 65504 is infinite, NaN stays NaN.  The same in the tables of either dtype.

void FC_NAME(widen)(const uint16_t *in, float *out, int64_t count) {
    int64_t i = 0;
    for (; i + FC_VL_f32 <= count; i += FC_VL_f32) v_store_f32(out + i, v_load_half(in + i));
    if (i == count) return;
    uint16_t rest[FC_VL_f32] = {0};
    memcpy(rest, in + i, (size_t)(count - i) * sizeof *rest);
    v_store_part_f32(out + i, v_load_half(rest), count - i);
}

void FC_NAME(narrow)(const float *in, uint16_t *out, int64_t count) {
    int64_t i = 0;
    for (; i + FC_VL_f32 <= count; i += FC_VL_f32) v_store_half(out + i, v_load_f32(in + i));
    if (i == count) return;
    uint16_t rest[FC_VL_f32];
    v_store_half(rest, v_load_part_f32(in + i, count - i));
    memcpy(out + i, rest, (size_t)(count - i) * sizeof *rest);
}
