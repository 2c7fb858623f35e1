# The one place where dtypes become types: `task` runs the variant of `span` that is made for the dtypes of a call. Each
# kernel includes this text, because a fused function cannot be handed to another one. What it finds there:
#
#   Job     the state of a task; it has `call.network`, and in `values` what is in the arithmetic dtype
#   span(Job* job, weight_t* weight, const index_t* indices, arith_t* values, int64_t start, int64_t stop)

from libc.stdint cimport int32_t, int64_t

from hebbax._cpu.buffers cimport BFLOAT16, FLOAT16, FLOAT32, INT32, Buffer, arith_t, bfloat16, float16, weight_t


cdef inline void span_typed(Job* job, weight_t* weight, arith_t* values, int64_t start, int64_t stop) noexcept nogil:
    cdef const Buffer* indices = &job.call.network.indices
    if indices.dtype == INT32:
        span(job, weight, <const int32_t*> indices.data, values, start, stop)
    else:
        span(job, weight, <const int64_t*> indices.data, values, start, stop)


cdef void task(void* state, int64_t start, int64_t stop) noexcept nogil:
    cdef Job* job = <Job*> state
    cdef const Buffer* weight = &job.call.network.weight
    if weight.dtype == FLOAT32:
        span_typed(job, <float*> weight.data, <float*> job.values, start, stop)
    elif weight.dtype == FLOAT16:
        span_typed(job, <float16*> weight.data, <float*> job.values, start, stop)
    elif weight.dtype == BFLOAT16:
        span_typed(job, <bfloat16*> weight.data, <float*> job.values, start, stop)
    else:
        span_typed(job, <double*> weight.data, <double*> job.values, start, stop)
