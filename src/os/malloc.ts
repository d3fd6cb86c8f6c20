/** How the C library's allocator, which gives Node the memory of its buffers, keeps what was freed. */
import { bind } from './bind.ts'

const M_TRIM_THRESHOLD = -1
const M_MMAP_THRESHOLD = -3
const MMAP_BYTES_MIN = 256 * 1024
/** The most that glibc takes. */
const MMAP_BYTES_MAX = 32 * 1024 * 1024
/** So much of what small buffers leave at the end is kept: given back, each burst of them would ask for it anew. */
const KEPT_BYTES_MAX = 16 * 1024 * 1024

/**
 * From now on large buffers have mappings of their own, which end when they are freed. By itself glibc raises that bound to
 * what is freed, up to 32 MiB, and from then on a process keeps the most memory that its buffers ever had, and more as they
 * leave gaps. Other C libraries have no such setting, and give large ones back anyway.
 */
export function giveLargeBuffersBack(): void {
  setThresholds(MMAP_BYTES_MIN, KEPT_BYTES_MAX)
}

/**
 * The other way round, for a process that does nothing but move bytes through buffers: those of up to 32 MiB are made of memory that was
 * freed before, of which so much is kept. New mappings are filled with zeros by the kernel first, which took a quarter of the
 * processor's time of reading blocks over a network. To be called at the start.
 */
export function keepFreedBuffers(bytes: number): void {
  setThresholds(MMAP_BYTES_MAX, bytes)
}

function setThresholds(mmapBytes: number, keptBytes: number): void {
  let set: (which: number, value: number) => number
  try {
    set = bind<[number, number]>('int mallopt(int which, int value)')
  } catch {
    // Not glibc.
    return
  }
  set(M_MMAP_THRESHOLD, mmapBytes)
  set(M_TRIM_THRESHOLD, keptBytes)
}
