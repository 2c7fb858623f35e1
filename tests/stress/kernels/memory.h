// Memory that tells who leaves it: pages without access on both sides, what is read mapped read-only, canaries in between.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

inline unsigned long long seed;  // of the input, if it comes from one

[[noreturn]] inline void fail(const char* what, long long got = 0, long long expected = 0) {
    fprintf(stderr, "WRONG: %s: got %lld, expected %lld (input %llu)\n", what, got, expected, seed);
    abort();
}

// One buffer at a time. The harness writes through `own`, a kernel gets `given`, which are the same pages, and for what
// it is to read only, it may only read.
struct Arena {
    static constexpr size_t ROOM = 1 << 18;  // of 12 members (a batch of 3 by 3, of which one is made 4), each of 1602 numbers
    static constexpr size_t MARGIN = 192;
    uint8_t *own = nullptr, *given = nullptr;
    size_t size = 0, begin = 0, bytes = 0;

    void open(bool writable) {
        size_t page = sysconf(_SC_PAGESIZE);
        size = ROOM;
        int file = memfd_create("arena", 0);
        if (file < 0 || ftruncate(file, size)) fail("no memory");
        for (uint8_t** view : {&own, &given}) {
            int access = view == &own || writable ? PROT_READ | PROT_WRITE : PROT_READ;
            auto guarded = (uint8_t*)mmap(nullptr, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            *view = (uint8_t*)mmap(guarded + page, size, access, MAP_SHARED | MAP_FIXED, file, 0);
            if (*view != guarded + page) fail("no memory");
        }
        memset(own, 0xA5, size);
        close(file);
    }
    // Room for so many bytes, which begin or end where the guard does.
    void place(size_t wanted, bool at_end) {
        if (wanted > size) fail("an arena is too small", wanted, size);
        bytes = wanted, begin = at_end ? size - wanted : 0;
        memset(own + before(), 0xA5, begin - before());
        memset(own + begin + bytes, 0xA5, after());
    }
    size_t before() const { return begin < MARGIN ? 0 : begin - MARGIN; }
    size_t after() const { return size - begin - bytes < MARGIN ? size - begin - bytes : MARGIN; }
    template <class T> T* as() const { return (T*)(own + begin); }
    void* data() const { return given + begin; }
    void lend() const {
        ASAN_POISON_MEMORY_REGION(given + before(), begin - before());
        ASAN_POISON_MEMORY_REGION(given + begin + bytes, after());
    }
    void take_back() const { ASAN_UNPOISON_MEMORY_REGION(given + before(), begin - before() + bytes + after()); }
    void check() const {
        for (size_t k = before(); k < begin; k++)
            if (own[k] != 0xA5) fail("a write before a buffer", (long long)k - (long long)begin);
        for (size_t k = 0; k < after(); k++)
            if (own[begin + bytes + k] != 0xA5) fail("a write after a buffer", k);
    }
};
