/**
 * Room within open files (fallocate(2)): taken before it is written to, given back, or made zero. The C library's function
 * is the system call itself: where the file system cannot, it fails with EOPNOTSUPP rather than write zeros.
 */
import { bind, checked, once } from './bind.ts'

/** Modes (linux/falloc.h); 0 takes room and lengthens the file. */
export const FALLOC_FL_KEEP_SIZE = 1
export const FALLOC_FL_PUNCH_HOLE = 2
export const FALLOC_FL_ZERO_RANGE = 16

const calls = once(() => ({
  fallocate: bind<[number, number, number, number]>(
    'int fallocate64(int fd, int mode, int64_t offset, int64_t length)',
  ),
}))

/** Changes the room of a range; `mode` is of the FALLOC_FL_* bits. */
export function allocateRange(fd: number, mode: number, offset: number, length: number): void {
  checked('fallocate', calls().fallocate(fd, mode, offset, length))
}
