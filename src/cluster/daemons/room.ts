/** Whether the file system of a daemon's directory has room: what must never fail for want of it is refused before. */
import { statfsSync } from 'node:fs'

/** It is looked at so often at most. */
const LOOK_MS = 500

/** @return whether so many bytes are free there, or were half a second ago */
export function roomAt(path: string, reserveBytes: number): () => boolean {
  let [hasRoom, lookedAt] = [true, Number.NEGATIVE_INFINITY]
  return () => {
    const now = performance.now()
    if (now - lookedAt < LOOK_MS) return hasRoom
    const { bavail, bsize } = statfsSync(path)
    lookedAt = now
    hasRoom = bavail * bsize >= reserveBytes
    return hasRoom
  }
}
