/**
 * Counts what the kernel tells of directories, by inotify of a test's own, so that it is known how much a sync had to miss. A file that
 * is made and closed counts once, as fanotify makes one event of both.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync } from 'node:fs'

import { ERRNO } from '#base/errno.ts'
import {
  decodeInotify,
  IN_CLOSE_WRITE,
  IN_DELETE,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  IN_Q_OVERFLOW,
  type InotifyEvent,
  openInotify,
  watchDirectory,
} from '#os/inotify.ts'
import { readNow } from '#os/read-write.ts'

const MASK = IN_CLOSE_WRITE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO

export class EventCounter {
  #count = 0
  readonly #fd = openInotify()
  readonly #events = Buffer.allocUnsafeSlow(1 << 16)

  constructor(directories: readonly string[]) {
    for (const directory of directories) {
      const fd = openSync(directory, 'r')
      assert.ok(watchDirectory(this.#fd, fd, MASK) >= 0)
      closeSync(fd)
    }
  }

  /** How many there were by now. To be asked before the queue, which holds 16,384 of them, is full. */
  get count(): number {
    const event: InotifyEvent = { watch: 0, mask: 0, cookie: 0, nameStart: 0, nameEnd: 0 }
    for (;;) {
      const length = readNow(this.#fd, this.#events)
      if (length === -ERRNO.EAGAIN) return this.#count
      assert.ok(length > 0)
      for (let at = 0; at < length;) {
        at = decodeInotify(this.#events, at, event)
        assert.equal(event.mask & IN_Q_OVERFLOW, 0)
        if ((event.mask & MASK) !== 0) this.#count++
      }
    }
  }

  close(): void {
    closeSync(this.#fd)
  }
}
