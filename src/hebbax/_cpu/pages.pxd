"""Huge pages for what is visited in scattered order: weights, rows that are summed in parts, traces, starts of rows.

Most of such a visit is a miss in the table of pages: on pages of 2 MB instead of 4 kB a processor's buffer covers all
of them. Linux does that where a process asks for it, with memory that is in use from 6.1 on.
"""

from libc.stddef cimport size_t


cdef extern from *:
    """
    #if defined(__linux__)
    #include <errno.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/mman.h>
    #ifndef MADV_COLLAPSE
    #define MADV_COLLAPSE 25
    #endif
    enum { HEBBAX_PAGE = 1 << 21, HEBBAX_ASKED = 1024, HEBBAX_PLACES = 8 };
    /* Where memory begins for which was asked already: most arrays stay where they are. Each has a few places here, the
       last of which all further ones take. Threads may overwrite each other's; then one asks again, in vain. */
    static uintptr_t hebbax_asked[HEBBAX_ASKED];
    static int hebbax_has_asked(uintptr_t start) {
        uintptr_t* entry = NULL;
        for (int k = 0; k < HEBBAX_PLACES; k++) {
            entry = &hebbax_asked[(start / HEBBAX_PAGE + k) % HEBBAX_ASKED];
            uintptr_t known = __atomic_load_n(entry, __ATOMIC_RELAXED);
            if (known == start) return 1;
            if (known == 0) break;
        }
        __atomic_store_n(entry, start, __ATOMIC_RELAXED);
        return 0;
    }
    /* Whether the system leaves it to processes: MADV_COLLAPSE would also do it where nobody is to have them. */
    static int hebbax_may_ask(void) {
        static int may = -1;
        int known = __atomic_load_n(&may, __ATOMIC_RELAXED);
        if (known >= 0) return known;
        char text[128] = "";
        FILE* file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
        known = file != NULL && fgets(text, sizeof text, file) != NULL && strstr(text, "[never]") == NULL;
        if (file != NULL) fclose(file);
        __atomic_store_n(&may, known, __ATOMIC_RELAXED);
        return known;
    }
    static inline void hebbax_use_huge_pages(void* data, size_t size) {
        uintptr_t start = ((uintptr_t)data + HEBBAX_PAGE - 1) / HEBBAX_PAGE * HEBBAX_PAGE;
        uintptr_t end = ((uintptr_t)data + size) / HEBBAX_PAGE * HEBBAX_PAGE;
        if (end < start + 4 * HEBBAX_PAGE || hebbax_has_asked(start)) return;
        int error = errno;
        if (hebbax_may_ask() && madvise((void*)start, end - start, MADV_HUGEPAGE) == 0)
            (void)madvise((void*)start, end - start, MADV_COLLAPSE);
        errno = error;
    }
    #else
    static inline void hebbax_use_huge_pages(void* data, size_t size) { (void)data; (void)size; }
    #endif
    """
    void use_huge_pages "hebbax_use_huge_pages"(void*, size_t) noexcept nogil
