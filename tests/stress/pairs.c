/* Additive plasticity of all pairs of spikes in double precision, from the spikes alone, and how far rounding can take
   one in single precision from it. Traces are worked out where they are used, and not at each step. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    int64_t n;          /* neurons of this side */
    const int32_t *indptr, *partners, *slots; /* slots: NULL where they are the places themselves */
    double *trace;      /* of each neuron, right after its last spike: the sum of d^age of its spikes, */
    double *aged;       /* and of age * d^age, */
    int64_t *last;      /* the step of that spike */
    double decay;       /* steps in a time constant, inverted */
    double amplitude;   /* what a spike of this side adds, times the other side's trace */
} Side;

typedef struct {
    double *weight, *bound, low, high;
    int64_t *touches;
    double rounding, per_step; /* one rounding, relative; how many of them a step of a trace takes at most */
} Weights;

static void value(const Side *side, int64_t j, int64_t step, double *trace, double *aged) {
    double age = (double)(step - side->last[j]), left = exp(-side->decay * age);
    *trace = left * side->trace[j];
    *aged = left * (side->aged[j] + age * side->trace[j]);
}

static void update(const Side *own, const Side *other, Weights *w, const uint8_t *spike, int64_t step) {
    double trace, aged, change, x;
    const uint8_t *at = spike;
    while ((at = memchr(at, 1, spike + own->n - at))) {
        int64_t j = at++ - spike;
        for (int64_t k = own->indptr[j]; k < own->indptr[j + 1]; k++) {
            int64_t slot = own->slots ? own->slots[k] : k;
            value(other, own->partners[k], step, &trace, &aged);
            change = own->amplitude * trace;
            x = w->weight[slot] + change;
            /* The sum is rounded once; a contribution of this age was rounded at each of its steps, and once in all.
               To clip brings two numbers no further apart. */
            w->bound[slot] += w->rounding * (fabs(x) + w->per_step * fabs(own->amplitude) * (trace + aged));
            w->touches[slot]++;
            w->weight[slot] = fmin(fmax(x, w->low), w->high);
        }
    }
}

static void add_spikes(Side *side, const uint8_t *spike, int64_t step) {
    const uint8_t *at = spike;
    while ((at = memchr(at, 1, spike + side->n - at))) {
        int64_t j = at++ - spike;
        double trace, aged;
        value(side, j, step, &trace, &aged);
        side->trace[j] = trace + 1;
        side->aged[j] = aged;
        side->last[j] = step;
    }
}

/* Steps `first` to `first + steps`, whose spikes are the rows of `pre_spike` and `post_spike`. */
void follow(Side *pre, Side *post, Weights *w, const uint8_t *pre_spike, const uint8_t *post_spike, int64_t first,
            int64_t steps) {
    for (int64_t k = 0; k < steps; k++, pre_spike += pre->n, post_spike += post->n) {
        update(pre, post, w, pre_spike, first + k);
        update(post, pre, w, post_spike, first + k);
        add_spikes(pre, pre_spike, first + k);
        add_spikes(post, post_spike, first + k);
    }
}
