/* What memory allows: lines of a large memory, known beforehand, touched in the order given, with prefetch.
 *
 * A line's lowest bit says whether it is written. Threads share out the lines evenly, and never wait for one another.
 * `lines` goes on for AHEAD elements, so that prefetching needs no test.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define LINE 64

/* Memory on huge pages, as the kernels ask for them; NULL if there is none. */
char *reserve(size_t size)
{
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, size, MADV_HUGEPAGE);
    for (size_t k = 0; k < size; k += 4096)
        memory[k] = 1; /* pages that were never written all share one */
    return memory;
}

void release(char *memory, size_t size)
{
    munmap(memory, size);
}

float touch(char *memory, const uint32_t *lines, int64_t count, int threads)
{
    float total = 0;
    #pragma omp parallel for schedule(static, 1) num_threads(threads) reduction(+ : total)
    for (int thread = 0; thread < threads; thread++) {
        float sum = 0;
        int64_t end = count * (thread + 1) / threads;
        for (int64_t k = count * thread / threads; k < end; k++) {
            __builtin_prefetch(memory + (size_t)(lines[k + AHEAD] >> 1) * LINE, 1, 3);
            float *value = (float *)(memory + (size_t)(lines[k] >> 1) * LINE);
            sum += *value;
            if (lines[k] & 1)
                *value = 0;
        }
        total += sum;
    }
    return total;
}
