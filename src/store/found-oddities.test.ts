/** What is found in a directory and Linux, or a program, could not use. */
import assert from 'node:assert/strict'
import { symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { xattrSet } from '#os/xattr.ts'
import { openDirectoryStore } from './directory-store.ts'

test('[S128] a symlink in a directory whose target is no text is an error rather than another target', async () => {
  const root = await mkdtemp(join(tmpdir(), 'eider-directory-'))
  const store = await openDirectoryStore(root)
  try {
    symlinkSync(Buffer.from([0x61, 0xe9]), join(root, 'latin'))
    symlinkSync('zi\u00e9l', join(root, 'text'))
    assert.equal(await store.readLink('text'), 'zi\u00e9l')
    await assert.rejects(store.readLink('latin'), (error) => isOperationError(error, 'STORE_NAME_INVALID'))
  } finally {
    await store.close()
    await rm(root, { recursive: true, force: true })
  }
})

test('[S128] an owner in a directory that no user or group can be counts as not told', async () => {
  const root = await mkdtemp(join(tmpdir(), 'eider-directory-'))
  const store = await openDirectoryStore(root)
  try {
    writeFileSync(join(root, 'file'), 'x')
    const before = (await store.stat('file')).attributes
    for (const owner of ['4294967295:1', '1:4294967295', '9999999999:1']) {
      xattrSet(join(root, 'file'), 'user.eider.owner', Buffer.from(owner))
      const { attributes } = await store.stat('file')
      assert.deepEqual([attributes?.uid, attributes?.gid], [before?.uid, before?.gid])
    }
  } finally {
    await store.close()
    await rm(root, { recursive: true, force: true })
  }
})
