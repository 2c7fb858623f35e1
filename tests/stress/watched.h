/* For ThreadSanitizer: copies and fills as loops, which it sees. Those of libc it sees only by who calls, and it is told
   to leave out all calls, because Python and XLA make them too and are not compiled for it. */
#include <stddef.h>
#include <string.h>

static inline void* watched_memcpy(void* to, const void* from, size_t size) {
    for (size_t k = 0; k < size; k++) ((char*)to)[k] = ((const char*)from)[k];
    return to;
}
static inline void* watched_memset(void* to, int value, size_t size) {
    for (size_t k = 0; k < size; k++) ((char*)to)[k] = (char)value;
    return to;
}
#define memcpy watched_memcpy
#define memset watched_memset

/* XLA hands a buffer from one call to the next, by whatever thread, through what is not compiled for TSan: that order it
   has to be told, or it takes two calls of one program for two that race. So each call begins after those that had ended
   when it did: it acquires what every call releases at its end, for which any address will do that all modules know.
   Nothing else is told. Calls that overlap are not ordered by it, nor a call's own threads, nor a borrowed one that is
   still at work when its call has ended (until it has run another call itself). What it hides: two calls that would race
   on what all share, but happened not to overlap. Calls by Python's door are told nothing. Nothing of this is in the kernels: capsules, by which XLA has the handlers, are
   made of functions that do it (those with names are Cython's own). */
#if __has_include(<Python.h>)
#define PY_SSIZE_T_CLEAN
#include <Python.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

typedef void *(*watched_handler)(void *frame);
enum { WATCHED = 16 };
static watched_handler watched_handlers[WATCHED];
static int watched_count;

#define WATCHED_CALL(k) \
    static void *watched_call_##k(void *frame) \
    { \
        __tsan_acquire(Py_None); \
        void *error = watched_handlers[k](frame); \
        __tsan_release(Py_None); \
        return error; \
    }
WATCHED_CALL(0) WATCHED_CALL(1) WATCHED_CALL(2) WATCHED_CALL(3) WATCHED_CALL(4) WATCHED_CALL(5) WATCHED_CALL(6)
WATCHED_CALL(7) WATCHED_CALL(8) WATCHED_CALL(9) WATCHED_CALL(10) WATCHED_CALL(11) WATCHED_CALL(12) WATCHED_CALL(13)
WATCHED_CALL(14) WATCHED_CALL(15)
static const watched_handler watched_calls[WATCHED] = {
    watched_call_0, watched_call_1, watched_call_2, watched_call_3, watched_call_4, watched_call_5,
    watched_call_6, watched_call_7, watched_call_8, watched_call_9, watched_call_10, watched_call_11,
    watched_call_12, watched_call_13, watched_call_14, watched_call_15,
};

__attribute__((unused)) static PyObject *watched_capsule(void *pointer, const char *name, PyCapsule_Destructor end)
{
    if (name == NULL) {
        int k = 0;
        while (k < watched_count && watched_handlers[k] != (watched_handler)pointer)
            k++;
        if (k == WATCHED)
            Py_FatalError("more handlers than watched.h has functions for");
        watched_handlers[k] = (watched_handler)pointer;
        watched_count = k == watched_count ? k + 1 : watched_count;
        pointer = (void *)watched_calls[k];
    }
    return PyCapsule_New(pointer, name, end);
}
#define PyCapsule_New watched_capsule
#endif
