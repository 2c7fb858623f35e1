/* Aligned memory, of which XLA's buffers are, each at the end of pages that nobody may touch before and after.

   For LD_PRELOAD. What lies between a buffer and its pages' ends is filled, and looked at when it is freed; then all of
   it is filled, and looked at when it is given out again, after all other memory of its size. */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul
#define CLASSES 9                                   /* of 1, 2, 4, ... pages */
#define SLOTS 128ul                                 /* of each class */
#define CANARY 0xA5

extern void __libc_free(void*);
extern void* __libc_memalign(size_t, size_t);

struct slot { size_t offset, size; int is_open; };

static char* arena[CLASSES];
static struct slot slots[CLASSES][SLOTS];
static unsigned queue[CLASSES][SLOTS];              /* of free ones, the longest free first */
static unsigned first[CLASSES], count[CLASSES];
static int lock, is_ready;
static char filled[PAGE];

static size_t pitch(int class) { return ((1ul << class) + 1) * PAGE; }

static void take(void) { while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) usleep(1); }
static void give(void) { __atomic_store_n(&lock, 0, __ATOMIC_RELEASE); }

static void end(const char* why) {
  if (write(2, why, strlen(why)) < 0) _exit(99);
  abort();
}

static int is_filled(const char* from, const char* to) {
  for (; to - from > (long)PAGE; from += PAGE)
    if (memcmp(from, filled, PAGE)) return 0;
  return memcmp(from, filled, to - from) == 0;
}

static void prepare(void) {
  memset(filled, CANARY, PAGE);
  for (int class = 0; class < CLASSES; class++) {
    size_t size = SLOTS * pitch(class) + PAGE;
    arena[class] = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena[class] == MAP_FAILED) end("guarded_malloc: no memory\n");
    for (unsigned k = 0; k < SLOTS; k++) queue[class][k] = k;
    count[class] = SLOTS;
  }
  is_ready = 1;
}

static char* pages_of(int class, unsigned k) { return arena[class] + PAGE + k * pitch(class); }

static void* allocate(size_t alignment, size_t size) {
  int class = 0;
  while (class < CLASSES && (PAGE << class) < size) class++;
  if (alignment < 32 || alignment > PAGE || size == 0 || class == CLASSES) return __libc_memalign(alignment, size);
  take();
  if (!is_ready) prepare();
  if (count[class] == 0) {
    give();
    return __libc_memalign(alignment, size);
  }
  unsigned k = queue[class][first[class]];
  first[class] = (first[class] + 1) % SLOTS;
  count[class]--;
  give();
  size_t whole = PAGE << class;
  char* pages = pages_of(class, k);
  struct slot* slot = &slots[class][k];
  if (!slot->is_open) {
    if (mprotect(pages, whole, PROT_READ | PROT_WRITE)) end("guarded_malloc: mprotect fails\n");
    memset(pages, CANARY, whole);
    slot->is_open = 1;
  }
  if (!is_filled(pages, pages + whole)) end("guarded_malloc: written to after it was freed\n");
  slot->offset = (whole - size) / alignment * alignment;
  slot->size = size;
  return pages + slot->offset;
}

void free(void* address) {
  for (int class = 0; is_ready && class < CLASSES; class++) {
    if ((char*)address < arena[class] || (char*)address >= arena[class] + SLOTS * pitch(class) + PAGE) continue;
    unsigned k = ((char*)address - arena[class] - PAGE) / pitch(class);
    char* pages = pages_of(class, k);
    struct slot* slot = &slots[class][k];
    if ((char*)address != pages + slot->offset) end("guarded_malloc: freed at another address\n");
    if (!is_filled(pages, address) || !is_filled((char*)address + slot->size, pages + (PAGE << class)))
      end("guarded_malloc: written outside a buffer\n");
    memset(address, CANARY, slot->size);
    take();
    queue[class][(first[class] + count[class]) % SLOTS] = k;
    count[class]++;
    give();
    return;
  }
  __libc_free(address);
}

int posix_memalign(void** out, size_t alignment, size_t size) {
  *out = allocate(alignment, size);
  return *out ? 0 : ENOMEM;
}

void* aligned_alloc(size_t alignment, size_t size) { return allocate(alignment, size); }
void* memalign(size_t alignment, size_t size) { return allocate(alignment, size); }
