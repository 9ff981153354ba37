/* Preloaded into a Python process: counts every heap allocation, and offers a feeder that allocates nothing. glibc only. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static atomic_long count;

long allocations_so_far(void) { return atomic_load(&count); }

void* malloc(size_t n) {
  atomic_fetch_add(&count, 1);
  return __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
  atomic_fetch_add(&count, 1);
  return __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) {
  atomic_fetch_add(&count, 1);
  return __libc_realloc(p, n);
}
void* memalign(size_t alignment, size_t n) {
  atomic_fetch_add(&count, 1);
  return __libc_memalign(alignment, n);
}
void* aligned_alloc(size_t alignment, size_t n) { return memalign(alignment, n); }
int posix_memalign(void** p, size_t alignment, size_t n) {
  *p = memalign(alignment, n);
  return *p ? 0 : ENOMEM;
}

/* context: the widths of two float inputs. */
int fill(void* context, int64_t first, int64_t rows, void* const* buffers) {
  const int64_t* widths = context;
  for (int i = 0; i < 2; ++i)
    for (int64_t k = 0; k < rows * widths[i]; ++k) ((float*)buffers[i])[k] = (float)((first + 7 * k) % 11) / 11.0f;
  return 0;
}
