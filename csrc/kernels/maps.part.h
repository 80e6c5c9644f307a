// SPDX-License-Identifier: BSD-3-Clause
//
// What goes through arrays element by element or line by line.
#include "kernels/map_functions.tmpl.c"

#include "kernels/fold.tmpl.c"
#include "kernels/lrn.tmpl.c"
#include "kernels/map_rows.tmpl.c"
#include "kernels/rectangle.tmpl.c"
#include "kernels/recurrent.tmpl.c"
#include "kernels/resize.tmpl.c"
#include "kernels/update.tmpl.c"
