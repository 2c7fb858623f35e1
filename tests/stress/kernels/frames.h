// What XLA would be to its handlers: call frames, errors, and a pool of threads, which comes in several kinds.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "memory.h"
#include "xla/ffi/api/c_api.h"
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

// A kernel's own idea of a buffer: src/hebbax/_cpu/buffers.pxd.
struct Buffer {
    void* data;
    int64_t size;
    int dtype;
    int64_t rank;
    const int64_t* dims;
};

enum PoolKind { NO_POOL, AT_ONCE, LATER, THREADS };

struct Machine {
    int pool = NO_POOL;
    int64_t run = 0;
    std::vector<std::pair<XLA_FFI_Task*, void*>> late;
};

struct Threads {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::pair<XLA_FFI_Task*, void*>> tasks;
    void start() {
        for (int k = 0; k < 3; k++) std::thread([this] { serve(); }).detach();
    }
    void serve() {
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex);
            wake.wait(lock, [this] { return !tasks.empty(); });
            auto task = tasks.front();
            tasks.pop_front();
            lock.unlock();
            task.first(task.second);
        }
    }
    void add(XLA_FFI_Task* task, void* data) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            tasks.emplace_back(task, data);
        }
        wake.notify_one();
    }
};
inline Threads& threads = *new Threads;  // (which outlives the process: its threads wait for ever)

struct Error {
    char message[1024];
    int code;
};
inline thread_local Error last_error;

inline XLA_FFI_Error* create_error(XLA_FFI_Error_Create_Args* args) {
    if (strlen(args->message) >= 256) fail("a message is too long", strlen(args->message));
    snprintf(last_error.message, sizeof last_error.message, "%s", args->message);
    last_error.code = args->errc;
    return (XLA_FFI_Error*)&last_error;
}
inline void destroy_error(XLA_FFI_Error_Destroy_Args*) {}
// XLA's threads flush subnormals, and whoever calls does not.
inline void run_as_worker(XLA_FFI_Task* task, void* data) {
#if defined(__SSE2__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    task(data);
    if (_mm_getcsr() != (before | 0x8040)) fail("a worker's floating-point mode was left changed");
    _mm_setcsr(before);
#else
    task(data);
#endif
}
inline XLA_FFI_Error* schedule(XLA_FFI_ThreadPool_Schedule_Args* args) {
    auto machine = (Machine*)args->ctx;
    if (machine->pool == AT_ONCE) run_as_worker(args->task, args->data);
    else if (machine->pool == LATER) machine->late.emplace_back(args->task, args->data);
    else if (machine->pool == THREADS) threads.add(args->task, args->data);
    else return (XLA_FFI_Error*)&last_error;
    return nullptr;
}
inline XLA_FFI_Error* get_run(XLA_FFI_RunId_Get_Args* args) {
    args->run_id = ((Machine*)args->ctx)->run;
    return nullptr;
}
inline const XLA_FFI_Api* api() {
    static XLA_FFI_Api api;
    api.struct_size = sizeof api;
    api.XLA_FFI_Error_Create = create_error;
    api.XLA_FFI_Error_Destroy = destroy_error;
    api.XLA_FFI_ThreadPool_Schedule = schedule;
    api.XLA_FFI_RunId_Get = get_run;
    return &api;
}

using Handler = XLA_FFI_Error* (*)(XLA_FFI_CallFrame*);

// Call a handler; return what went wrong, "" if nothing did.
inline const char* call_frame(
    Handler handler, Machine& machine, const Buffer* operands, int count, const Buffer* results, int returned,
    XLA_FFI_Scalar* scalars, int attributes
) {
    XLA_FFI_Buffer buffers[24] = {};
    void *args[16], *rets[8], *attrs[16];
    for (int k = 0; k < count + returned; k++) {
        const Buffer& from = k < count ? operands[k] : results[k - count];
        buffers[k].struct_size = sizeof(XLA_FFI_Buffer);
        buffers[k].dtype = (XLA_FFI_DataType)from.dtype, buffers[k].data = from.data;
        buffers[k].rank = from.rank, buffers[k].dims = (int64_t*)from.dims;
        (k < count ? args[k] : rets[k - count]) = &buffers[k];
    }
    for (int k = 0; k < attributes; k++) attrs[k] = &scalars[k];
    XLA_FFI_CallFrame frame = {};
    frame.struct_size = sizeof frame, frame.api = api(), frame.ctx = (XLA_FFI_ExecutionContext*)&machine;
    frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
    frame.args.size = count, frame.args.args = args;
    frame.rets.size = returned, frame.rets.rets = rets;
    frame.attrs.size = attributes, frame.attrs.attrs = attrs;
    XLA_FFI_Error* error = handler(&frame);
    return error ? ((Error*)error)->message : "";
}
inline const char* call_xla(
    Handler handler, Machine& machine, const Buffer* operands, int count, const Buffer& result, int32_t flags, double mu,
    int attributes
) {
    XLA_FFI_Scalar scalars[2] = {{XLA_FFI_DataType_S32, &flags}, {XLA_FFI_DataType_F64, &mu}};
    return call_frame(handler, machine, operands, count, &result, 1, scalars, attributes);
}
// Threads that were asked come after all is done.
inline void let_late_ones_come(Machine& machine) {
    for (auto& task : machine.late) run_as_worker(task.first, task.second);
    machine.late.clear();
}
