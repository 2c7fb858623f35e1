/* To preload: fails the n-th allocation that code in files whose path has a given part asks for itself, and counts what
   that code holds. Everything else (Python, XLA, NumPy, OpenMP) allocates as ever. For glibc. */

#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

enum { MOST = 65536 };
static struct { uintptr_t low, high; } code[64];
static int n_code;
static long fails_at, asked;
static void *held[MOST];
static long n_held;
static int lock;

static int of_file(struct dl_phdr_info *info, size_t size, void *part) {
    if (strstr(info->dlpi_name, part) == NULL) return 0;
    for (int k = 0; k < info->dlpi_phnum && n_code < 64; k++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[k];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X)) continue;
        code[n_code].low = info->dlpi_addr + segment->p_vaddr;
        code[n_code].high = code[n_code].low + segment->p_memsz;
        n_code++;
    }
    return 0;
}

/* Watch the code that is loaded now; return how many pieces of it there are. */
int fail_watch(const char *part) {
    n_code = 0;
    dl_iterate_phdr(of_file, (void *)part);
    return n_code;
}

/* Begin to count, and let the n-th fail; 0: none. */
void fail_at(long n) {
    __atomic_store_n(&asked, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&fails_at, n, __ATOMIC_SEQ_CST);
}

long fail_asked(void) { return __atomic_load_n(&asked, __ATOMIC_SEQ_CST); }
long fail_held(void) { return __atomic_load_n(&n_held, __ATOMIC_SEQ_CST); }

static int watched(const void *caller) {
    for (int k = 0; k < n_code; k++)
        if ((uintptr_t)caller >= code[k].low && (uintptr_t)caller < code[k].high) return 1;
    return 0;
}

static int fails(void) {
    long n = __atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST);
    if (n != __atomic_load_n(&fails_at, __ATOMIC_SEQ_CST)) return 0;
    errno = ENOMEM;
    return 1;
}

static void *hold(void *address) {
    if (address == NULL) return NULL;
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) continue;
    if (n_held < MOST) held[n_held] = address, __atomic_add_fetch(&n_held, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    return address;
}

static void release(void *address) {
    if (address == NULL || __atomic_load_n(&n_held, __ATOMIC_SEQ_CST) == 0) return;
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) continue;
    for (long k = 0; k < n_held; k++)
        if (held[k] == address) {
            held[k] = held[n_held - 1];
            __atomic_add_fetch(&n_held, -1, __ATOMIC_SEQ_CST);
            break;
        }
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

#define ASKED(made) \
    if (n_code == 0 || !watched(__builtin_return_address(0))) return made; \
    return fails() ? NULL : hold(made)

void *malloc(size_t size) { ASKED(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { ASKED(__libc_calloc(n, size)); }
void *aligned_alloc(size_t align, size_t size) { ASKED(__libc_memalign(align, size)); }
void *memalign(size_t align, size_t size) { ASKED(__libc_memalign(align, size)); }

int posix_memalign(void **address, size_t align, size_t size) {
    int ours = n_code && watched(__builtin_return_address(0));
    if (ours && fails()) return ENOMEM;
    void *made = __libc_memalign(align, size);
    if (made == NULL) return ENOMEM;
    *address = ours ? hold(made) : made;
    return 0;
}

void *realloc(void *old, size_t size) {
    if (n_code == 0 || !watched(__builtin_return_address(0))) return __libc_realloc(old, size);
    if (fails()) return NULL;
    release(old);
    return hold(__libc_realloc(old, size));
}

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset) {
    if (n_code && watched(__builtin_return_address(0)) && fails()) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, size, protection, flags, file, offset);
}

void free(void *address) {
    release(address);
    __libc_free(address);
}
