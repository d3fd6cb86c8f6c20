/** A directory of a test's own for what a machine keeps, on a disk of any size where root runs the test. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Why a test is skipped that needs a small disk. */
export const notRoot = process.getuid?.() === 0 ? false : 'only root makes a small disk'

export class Place {
  readonly directory = mkdtempSync(join(tmpdir(), 'eider-place-'))
  readonly journal = join(this.directory, 'journal')
  readonly stateFile = join(this.directory, 'state', 'data.lmdb')
  #isMounted = false

  /** @param size as mount(8) takes it: `2m` */
  mountSmall(size: string): void {
    this.#mount('-t', 'tmpfs', '-o', `size=${size}`, 'eider-test')
    this.#isMounted = true
  }

  grow(size: string): void {
    this.#mount('-o', `remount,size=${size}`)
  }

  [Symbol.dispose](): void {
    if (this.#isMounted) assert.equal(spawnSync('umount', ['--lazy', this.directory]).status, 0)
    rmSync(this.directory, { recursive: true })
  }

  #mount(...words: string[]): void {
    const { status, stderr } = spawnSync('mount', [...words, this.directory], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
}
