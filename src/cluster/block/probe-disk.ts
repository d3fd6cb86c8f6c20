/**
 * Whether a disk still works after an I/O error: asked of files that have nothing to do with the one that failed.
 */
import { type BlockFiles, faultOf } from './block-files.ts'
import { readIdentity, TEMPORARY_DIRECTORY } from './disk-identity.ts'
import { PAGE_BYTES } from './page-sums.ts'
import type { DiskId } from './permit.ts'

const PROBE_FILE = `${TEMPORARY_DIRECTORY}/probe`

/**
 * Reads the identity from the device, and writes a page, syncs it and reads it back. Gives what is wrong; undefined where
 * the disk works, or where that cannot be told for want of room or of descriptors.
 */
export async function probeDisk(files: BlockFiles, disk: DiskId): Promise<unknown> {
  try {
    const identity = await readIdentity(files)
    if (identity.disk !== disk) return new Error('another disk is in its place')
    await files.remove(PROBE_FILE)
    const file = await files.create(PROBE_FILE)
    try {
      const page = Buffer.alloc(PAGE_BYTES, 'eider')
      const back = files.allocate(PAGE_BYTES)
      await file.append([page])
      await file.sync()
      const count = await file.readBack(0, back)
      if (count !== PAGE_BYTES || !page.equals(back)) return new Error('what is written is not what is read back')
    } finally {
      await file.close()
    }
    await files.remove(PROBE_FILE)
    return undefined
  } catch (error) {
    const fault = faultOf(error)
    return fault === 'full' || fault === 'machine' ? undefined : error
  }
}
