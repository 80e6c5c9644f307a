// SPDX-License-Identifier: BSD-3-Clause
//
// planner.c - the choice among the algorithms of convolutions (algorithms.c) and among the kinds of other problems, and the
// plan that holds it (plan.c).
#include "core/algorithms.h"
#include "core/family.h"
#include "core/plan.h"

// ----------------------------------------------------------------------------------------------------------- choosing

// Whether steps of `outer` continue where `count` inner steps end; a single inner step can be any.
static int continues(int64_t outer, int64_t inner, int64_t count) { return count == 1 || outer == inner * count; }

// The same problem in fewer, longer rows: where the kernel has one tap along an axis, rows that follow each other in
// memory are one row, and the images of a linear layer, of one pixel each, are the pixels of one image.
static fc_problem in_long_rows(fc_problem p) {
    fc_axis *w = &p.axis[2];
    for (int i = 1; i >= -1 && fc_is_pointwise(w); i--) { // height, depth, image
        const int64_t *src = i < 0 ? &p.src.outer : &p.src.axis[i], *dst = i < 0 ? &p.dst.outer : &p.dst.axis[i];
        const int64_t count = i < 0 ? p.batch : p.axis[i].in;
        if (i >= 0 && !fc_is_pointwise(&p.axis[i])) break;
        if (count == 1) continue;
        if (count == 0 || !continues(*src, p.src.axis[2], w->in) || !continues(*dst, p.dst.axis[2], w->in)) break;
        if (w->in == 1) {
            p.src.axis[2] = *src;
            p.dst.axis[2] = *dst;
        }
        w->in = w->out = w->in * count;
        if (i < 0) p.batch = 1;
        else p.axis[i].in = p.axis[i].out = 1;
    }
    return p;
}

// What a kind that serves such problems at all says of this one.
static fc_verdict ask_kind(const fc_kind *kind, const fc_request *r) {
    fc_verdict v = {.cost = INFINITY};
    if (kind->traits & FC_INEXACT && r->options->strict)
        v.refusal = "precision='strict' keeps the error bound of direct summation";
    else if (r->op->family == FC_CONV && ((const fc_problem *)r->op->problem)->pooled && !(kind->traits & FC_POOLS))
        v.refusal = "only Winograd's tiles of an even number of rows are pooled as they are stored";
    else if (kind->ask) return kind->ask(r);
    else if (kind->refuse) v.refusal = kind->refuse(r);
    if (!v.refusal) v.cost = kind->cost(r);
    if (!v.refusal && kind->packing) v.packing = kind->packing(r);
    return v;
}

// The kind of an algorithm that needs no other problems.
static const fc_kind *own_kind(fc_algo_id algorithm, const fc_problem *p) {
    if (algorithm == FC_AUTO) return NULL;
    const fc_kind *own = fc_algorithms[p->direction][algorithm];
    return own ? own : fc_algorithms[FC_FORWARD][algorithm];
}

static int serves(const fc_kind *kind, const fc_problem *p) {
    return kind->traits >> p->direction & 1 && fc_is_plain(p) == !(kind->traits & FC_CONVERTS);
}

// The kind by which the algorithm in question serves best.
static fc_verdict ask_algorithm(const fc_request *r, const fc_kind **best) {
    const fc_kind *own = own_kind(r->options->algorithm, r->op->problem);
    fc_verdict found = {.name = own ? own->name : NULL, .cost = INFINITY};
    *best = NULL;
    for (int i = -1; i < 0 || fc_derived_kinds[i]; i++) {
        const fc_kind *kind = i < 0 ? own : fc_derived_kinds[i];
        if (kind == &fc_kind_views && *best && !found.refusal) continue; // a gradient with a kind of its own
        if (!kind || !serves(kind, r->op->problem) || (!own && !(kind->traits & FC_BY_PARTS))) continue;
        const fc_verdict v = ask_kind(kind, r);
        if (*best && (v.refusal || fc_total(&v, r->options) >= fc_total(&found, r->options))) continue;
        found = v;
        found.name = own ? own->name : kind->name;
        *best = kind;
    }
    return found;
}

static const fc_planner planner;

static fc_request request_of(const fc_op *op, const fc_options *options) {
    return (fc_request){op, fc_kernels_for(options->machine.isa, fc_op_dtype(op)), options, &planner};
}

static fc_problem simplified(const fc_problem *p) {
    return p->direction != FC_BACKWARD_INPUT && fc_is_plain(p) ? in_long_rows(*p) : *p;
}

// What the choice looks at: with batch_invariant one image of several.
static fc_problem in_question(const fc_problem *problem, const fc_options *options) {
    fc_problem p = *problem;
    if (options->batch_invariant && p.direction != FC_BACKWARD_WEIGHT) p.batch = fc_min(p.batch, 1);
    return simplified(&p);
}

static fc_verdict ask_as(const fc_op *op, const fc_options *options, fc_algo_id algorithm) {
    const fc_problem p = in_question(op->problem, options);
    fc_options chosen = *options;
    chosen.algorithm = algorithm;
    const fc_kind *kind;
    const fc_request r = request_of(&(fc_op){FC_CONV, &p}, &chosen);
    return ask_algorithm(&r, &kind);
}

void fc_plan_explain(const fc_problem *problem, const fc_options *options, fc_verdict verdicts[FC_ALGOS]) {
    for (int id = 0; id < FC_ALGOS; id++) verdicts[id] = ask_as(&(fc_op){FC_CONV, problem}, options, (fc_algo_id)id);
}

// FC_AUTO where parts that choose for themselves are no dearer than any one algorithm.
static fc_algo_id cheapest(const fc_problem *problem, const fc_options *options) {
    fc_verdict verdicts[FC_ALGOS];
    fc_algo_id best = FC_REFERENCE;
    fc_plan_explain(problem, options, verdicts);
    for (int id = 0; id < FC_ALGOS; id++)
        if (!(fc_algorithms[FC_FORWARD][id]->traits & FC_BY_NAME) &&
            fc_total(&verdicts[id], options) < fc_total(&verdicts[best], options))
            best = (fc_algo_id)id;
    const fc_verdict parts = ask_as(&(fc_op){FC_CONV, problem}, options, FC_AUTO);
    return fc_total(&parts, options) <= fc_total(&verdicts[best], options) ? FC_AUTO : best;
}

static fc_verdict ask(const fc_op *op, const fc_options *options) {
    const fc_algo_id algorithm = options->algorithm == FC_AUTO ? cheapest(op->problem, options) : options->algorithm;
    return ask_as(op, options, algorithm);
}

// ------------------------------------------------------------------------------------------------------------- making

// The kind of convolution that serves, its algorithm, and what it predicts.
static fc_status choose_algorithm(fc_plan *plan, const fc_problem *p, fc_options *options, char message[FC_MESSAGE]) {
    const int one_by_one = options->batch_invariant && p->direction != FC_BACKWARD_WEIGHT;
    if (one_by_one && p->batch > 1 && p->direction == FC_FORWARD && fc_is_plain(p)) {
        plan->problem = *p;
        plan->kind = &fc_kind_images;
        return FC_OK;
    }
    plan->problem = simplified(p);
    if (options->algorithm == FC_AUTO) options->algorithm = cheapest(&plan->problem, options);
    const fc_problem asked = in_question(&plan->problem, options); // the kind is a choice, too
    const fc_request r = request_of(&(fc_op){FC_CONV, &asked}, options);
    const fc_verdict verdict = ask_algorithm(&r, &plan->kind);
    plan->id = options->algorithm;
    plan->seconds = verdict.cost * (double)(one_by_one ? plan->problem.batch : 1); // parts speak of one image
    if (!verdict.refusal) return FC_OK;
    snprintf(message, FC_MESSAGE, "%s", verdict.refusal);
    return FC_UNSUPPORTED;
}

// Packed weights depend on the sizes and the strides of the weights, the kernels that read them, and the kind's choices;
// not on the image, but that it may decide those.
static uint64_t tag_of(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const int64_t all[] = {plan->id,
                           plan->machine.isa,
                           p->types.source,
                           p->types.weight,
                           p->types.accumulator,
                           p->types.destination,
                           p->direction,
                           p->groups,
                           p->in_channels,
                           p->out_channels,
                           p->wei.group,
                           p->wei.outer,
                           p->wei.channel,
                           p->wei.axis[0],
                           p->wei.axis[1],
                           p->wei.axis[2],
                           p->axis[0].kernel,
                           p->axis[1].kernel,
                           p->axis[2].kernel,
                           plan->part_count,
                           (int64_t)plan->packed_bytes};
    uint64_t tag = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tag = fc_tag(tag, all[i]);
    for (int i = 0; i < FC_CHOICES; i++) tag = fc_tag(tag, plan->packing[i]);
    for (int64_t i = 0; i < plan->part_count; i++) {
        const fc_part *part = &plan->parts[i];
        tag = fc_tag(fc_tag(tag, (int64_t)part->plan->tag), (int64_t)part->packed);
    }
    return tag;
}

// The kind of another problem that serves, and what it predicts.
static fc_status choose_kind(fc_plan *plan, const fc_op *op, const fc_options *options, char message[FC_MESSAGE]) {
    const fc_request r = request_of(op, options);
    fc_verdict v = {0};
    memcpy(&plan->problem, op->problem, fc_families[op->family].bytes);
    for (const fc_kind *const *kind = fc_families[op->family].kinds; *kind; kind++) {
        v = ask_kind(*kind, &r);
        if (v.refusal) continue;
        plan->kind = *kind;
        plan->seconds = v.cost;
        return FC_OK;
    }
    snprintf(message, FC_MESSAGE, "%s", v.refusal);
    return FC_UNSUPPORTED;
}

static fc_status make(const fc_op *op, const fc_options *options, fc_plan **out, char message[FC_MESSAGE]) {
    snprintf(message, FC_MESSAGE, "not enough memory for the plan");
    fc_options chosen = *options;
    fc_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return FC_NO_MEMORY;
    plan->family = op->family;
    fc_status status = op->family == FC_CONV ? choose_algorithm(plan, op->problem, &chosen, message)
                                             : choose_kind(plan, op, &chosen, message);
    if (status == FC_OK) {
        const fc_op own = {op->family, &plan->problem}; // the address of whatever the union holds
        const fc_request r = request_of(&own, &chosen);
        plan->kernels = r.kernels;
        plan->machine = chosen.machine;
        status = plan->kind->layout(plan, &r, message);
        if (status == FC_OK && op->family == FC_CONV) plan->tag = tag_of(plan);
    }
    if (status != FC_OK) {
        fc_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return FC_OK;
}

static fc_verdict ask_own(const fc_op *op, const fc_options *options) {
    const fc_problem p = simplified(op->problem);
    const fc_request r = request_of(&(fc_op){FC_CONV, &p}, options);
    return ask_kind(own_kind(options->algorithm, &p), &r);
}

static const fc_kind *kind_of(fc_algo_id algorithm) { return fc_algorithms[FC_FORWARD][algorithm]; }

static const fc_planner planner = {ask, ask_own, make, kind_of};

// Every constant is a time.  One that is not positive or not finite would make a choice without meaning.
static int costs_make_sense(const fc_costs *costs) {
#define FC_COST(name) &&isfinite(costs->name) && costs->name > 0
    return 1 FC_COSTS(FC_COST);
#undef FC_COST
}

static int machine_makes_sense(const fc_machine *m) {
#define FC_CACHE(name) &&m->name > 0 && m->name <= INT64_C(1) << 40
    return 1 FC_CACHES(FC_CACHE);
#undef FC_CACHE
}

fc_status fc_plan_create(const fc_op *op, const fc_options *options, fc_plan **out, char message[FC_MESSAGE]) {
    *out = NULL;
    const fc_status status = fc_op_check(op, message);
    if (status != FC_OK) return status;
    if (!fc_isa_supported(options->machine.isa) || options->algorithm < FC_AUTO || options->algorithm >= FC_ALGOS) {
        snprintf(message, FC_MESSAGE, "no such instruction set or algorithm on this machine");
        return FC_INVALID;
    }
    if (!costs_make_sense(&options->costs)) {
        snprintf(message, FC_MESSAGE, "a cost is not a positive number of seconds");
        return FC_INVALID;
    }
    if (!machine_makes_sense(&options->machine)) {
        snprintf(message, FC_MESSAGE, "a cache has no positive size below 1 TiB");
        return FC_INVALID;
    }
    return make(op, options, out, message);
}
