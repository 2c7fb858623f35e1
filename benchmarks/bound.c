/* The lower bound: the slots that a step touches, known beforehand and sorted, visited with prefetch.
 *
 * The weights are split evenly over the threads, which never wait for one another. In step s, thread t visits
 * slots[begin[p][t] ... begin[p][t + 1]), where p = s % patterns. `slots` goes on for AHEAD elements, so that
 * prefetching needs no test. A kernel that has to find its slots, to read a trace for each, and to end every step
 * before the next begins, does more than this.
 */
#include <stdint.h>

void update(float *weight, const int32_t *slots, const int64_t *begin, int64_t patterns, int64_t steps, int threads,
            float change)
{
    #pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int thread = 0; thread < threads; thread++) {
        for (int64_t step = 0; step < steps; step++) {
            const int64_t *range = begin + step % patterns * (threads + 1) + thread;
            for (int64_t k = range[0]; k < range[1]; k++) {
                __builtin_prefetch(weight + slots[k + AHEAD], 1, 3);
                float w = weight[slots[k]] + change;
                w = w < 0 ? 0 : w;
                weight[slots[k]] = w > 1 ? 1 : w;
            }
        }
    }
}

/* Returns the sum of the last step's weights, where an operator would have one sum for each neuron. */
float propagate(const float *weight, const int32_t *slots, const int64_t *begin, int64_t patterns, int64_t steps,
                int threads)
{
    float total = 0;
    #pragma omp parallel for schedule(static, 1) num_threads(threads) reduction(+ : total)
    for (int thread = 0; thread < threads; thread++) {
        float sum = 0;
        for (int64_t step = 0; step < steps; step++) {
            const int64_t *range = begin + step % patterns * (threads + 1) + thread;
            sum = 0;
            for (int64_t k = range[0]; k < range[1]; k++) {
                __builtin_prefetch(weight + slots[k + AHEAD], 0, 3);
                sum += weight[slots[k]];
            }
        }
        total += sum;
    }
    return total;
}
