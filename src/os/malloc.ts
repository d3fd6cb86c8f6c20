/** How the C library's allocator, which gives Node the memory of its buffers, keeps what was freed. */
import { bind } from './bind.ts'

const M_TRIM_THRESHOLD = -1
const M_MMAP_THRESHOLD = -3
const MMAP_BYTES_MIN = 256 * 1024
/** So much of what small buffers leave at the end is kept: given back, each burst of them would ask for it anew. */
const KEPT_BYTES_MAX = 16 * 1024 * 1024

/**
 * From now on large buffers have mappings of their own, which end when they are freed. By itself glibc raises that bound to
 * what is freed, up to 32 MiB, and from then on a process keeps the most memory that its buffers ever had, and more as they
 * leave gaps. Other C libraries have no such setting, and give large ones back anyway.
 */
export function giveLargeBuffersBack(): void {
  let set: (which: number, value: number) => number
  try {
    set = bind<[number, number]>('int mallopt(int which, int value)')
  } catch {
    // Not glibc.
    return
  }
  set(M_MMAP_THRESHOLD, MMAP_BYTES_MIN)
  set(M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
}
