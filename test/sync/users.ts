/** Who runs a sync of a test: root, root without the capability that fanotify needs, or nobody. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'

export const isRoot = process.getuid?.() === 0
const NOBODY = 65_534
/** Runs a program as a user who has no rights of his own; for root alone. */
export const AS_NOBODY = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']
/** Runs a program so that inotify is the best that it has, with the rights of this user. */
export const WITHOUT_FANOTIFY = isRoot ? ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin'] : []

/** All that lies at a path becomes nobody's. */
export function giveToNobody(path: string): void {
  assert.equal(spawnSync('chown', ['-R', `${NOBODY}:${NOBODY}`, path]).status, 0)
}
