/* The experiments' neurons, one loop over the arrays that a step reads and writes; constants as in their Parameters. */

#include <stdint.h>

void cuba(int64_t n, float *restrict v, float *restrict ge, float *restrict gi, int32_t *restrict ref,
          const float *restrict e, const float *restrict i, uint8_t *restrict spike, const float *c) {
    const float left_v = c[0], left_e = c[1], left_i = c[2], of_e = c[3], of_i = c[4], reset = c[5], threshold = c[6];
    const int32_t rest = (int32_t) c[7];
    for (int64_t k = 0; k < n; k++) {
        float x = (ge[k] + e[k]) * left_e, y = (gi[k] + i[k]) * left_i;
        float moved = v[k] * left_v + x * of_e + y * of_i;
        float at = ref[k] > 0 ? reset : moved;
        int32_t left = ref[k] > 1 ? ref[k] - 1 : 0;
        ge[k] = x;
        gi[k] = y;
        v[k] = at > threshold ? reset : at;
        ref[k] = at > threshold ? rest : left;
        spike[k] = at > threshold;
    }
}

void brunel10k(int64_t n, float *restrict v, int32_t *restrict ref, const float *restrict e, const float *restrict i,
               const float *restrict drive, uint8_t *restrict spike, const float *c) {
    const float left_v = c[0], threshold = c[1], weight = c[3];
    const int32_t rest = (int32_t) c[2];
    for (int64_t k = 0; k < n; k++) {
        float decayed = v[k] * left_v, moved = decayed + (e[k] + i[k] + weight * drive[k]);
        int32_t left = ref[k] > 1 ? ref[k] - 1 : 0, rests = decayed >= threshold ? rest : left;
        v[k] = rests > 0 ? 0 : moved;
        ref[k] = rests;
        spike[k] = decayed >= threshold;
    }
}

void hpc(int64_t n, float *restrict v, float *restrict current, float *restrict rise, int32_t *restrict ref,
         const float *restrict e, const float *restrict i, const float *restrict drive, uint8_t *restrict spike,
         const float *c) {
    const float v_v = c[0], v_i = c[1], v_r = c[2], i_i = c[3], i_r = c[4], r_r = c[5], threshold = c[6], weight = c[8];
    const int32_t rest = (int32_t) c[7];
    for (int64_t k = 0; k < n; k++) {
        float moved = v_v * v[k] + v_i * current[k] + v_r * rise[k];
        float at = ref[k] > 0 ? 0 : moved;
        int32_t left = ref[k] > 1 ? ref[k] - 1 : 0;
        v[k] = at >= threshold ? 0 : at;
        current[k] = i_i * current[k] + i_r * rise[k];
        rise[k] = r_r * rise[k] + (e[k] + i[k] + weight * drive[k]);
        ref[k] = at >= threshold ? rest : left;
        spike[k] = at >= threshold;
    }
}
