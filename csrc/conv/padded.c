// SPDX-License-Identifier: BSD-3-Clause
//
// padded.c - the geometry of zero-padded rows. The input of a block of output rows is copied once, and every tap is then
// the same memory at another offset.
//
// With s the stride and e the dilation, tap k reads input column j * s - pad + k * e for output column j: column
// j + (k * e) / s of phase (k * e) % s.  A phase plane has `rows` + rows_extra rows of `width` columns:
//
//   over pixels    planes [channel][kd][phase h][phase w][row][column]
//   over channels  planes [kd][phase h][phase w][row][column][channel]
#include "conv/padded.h"

int fc_padded_fits(const fc_problem *p, int64_t bytes) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const double rows = 1.0 + (double)((h->kernel - 1) * h->dilation / h->stride);
    const double width = (double)w->out + (double)((w->kernel - 1) * w->dilation / w->stride);
    const double planes = (double)p->axis[0].kernel * (double)h->stride * (double)w->stride;
    return planes * rows * width * (double)fc_bytes(p->types.source) <= (double)bytes;
}

fc_padded fc_padded_rows(const fc_problem *p, int64_t rows, int64_t channels, int64_t pixel, int64_t slack) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    fc_padded s = {.rows = rows, .pixel = pixel};
    s.width = w->out + (w->kernel - 1) * w->dilation / w->stride;
    s.rows_extra = (h->kernel - 1) * h->dilation / h->stride;
    s.plane = (s.rows + s.rows_extra) * s.width * pixel;
    return fc_padded_of_planes(s, channels * p->axis[0].kernel * h->stride * w->stride, slack);
}

fc_padded fc_padded_of_planes(fc_padded s, int64_t planes, int64_t slack) {
    s.elements = fc_round_up(planes * s.plane + slack, 16);
    return s;
}

void fc_padded_offsets(const fc_problem *p, const fc_padded *s, int64_t channels, int64_t *offsets) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    for (int64_t c = 0; c < channels; c++)
        for (int64_t kd = 0; kd < p->axis[0].kernel; kd++)
            for (int64_t kh = 0; kh < h->kernel; kh++)
                for (int64_t kw = 0; kw < w->kernel; kw++) {
                    const int64_t y = kh * h->dilation, x = kw * w->dilation, depth = c * p->axis[0].kernel + kd;
                    const int64_t plane = (depth * h->stride + y % h->stride) * w->stride + x % w->stride;
                    *offsets++ = plane * s->plane + (y / h->stride * s->width + x / w->stride) * s->pixel;
                }
}
