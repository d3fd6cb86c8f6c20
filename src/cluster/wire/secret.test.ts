import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'

import { readSecret, SECRET_BYTES_MIN, secretFrom } from './secret.ts'

test('a secret is the content of its file without the white space around it', async () => {
  const dir = await mkdtemp('/tmp/eider-secret-')
  try {
    const path = join(dir, 'secret')
    await writeFile(path, ' \t0123456789 abcdef\r\n\n', { mode: 0o600 })
    assert.equal((await readSecret(path)).toString(), '0123456789 abcdef')
    await writeFile(path, 'a'.repeat(5000))
    await assert.rejects(readSecret(path), { code: 'USAGE' })
    await assert.rejects(readSecret(join(dir, 'none')), { code: 'USAGE', message: /Cannot read the secret from/ })
    await assert.rejects(readSecret(dir), { code: 'USAGE' })
  } finally {
    await rm(dir, { recursive: true })
  }
})

test('a short secret is refused, whatever white space it has around it', () => {
  for (const content of [
    '',
    '\n',
    ' '.repeat(40),
    'a'.repeat(SECRET_BYTES_MIN - 1),
    `${'a'.repeat(SECRET_BYTES_MIN - 1)}\n\n`,
  ])
    assert.throws(() => secretFrom(Buffer.from(content), 'a test'), { code: 'USAGE' })
  const any = Buffer.alloc(SECRET_BYTES_MIN, 0xff)
  assert.deepEqual(secretFrom(any, 'a test'), any)
})
