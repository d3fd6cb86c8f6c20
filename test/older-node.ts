/** A Node on this machine that is too old to run Eider itself, as the one that Debian users have. */
import { execFileSync } from 'node:child_process'
import { delimiter, join } from 'node:path'

const MAJOR_TOO_NEW = 24
const MAJOR_TOO_OLD = 20

/** Its folder, which holds npm too where the system has npm; undefined where there is none. */
export function olderNodeFolder(): string | undefined {
  return (process.env['PATH'] ?? '').split(delimiter).find((folder) => {
    try {
      const version = execFileSync(join(folder, 'node'), ['--version'], { encoding: 'utf8', stdio: 'pipe' })
      const major = Number(/^v(\d+)/.exec(version)?.[1])
      return major >= MAJOR_TOO_OLD && major < MAJOR_TOO_NEW
    } catch {
      return false
    }
  })
}
