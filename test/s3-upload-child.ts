/**
 * A process that has a bucket open, for tests that kill it: s3-upload-child.ts ENDPOINT REGION ACCESS_KEY SECRET_KEY URL FILE. Prints
 * `ready`, takes one line from its stdin, `put PATH` or `upload PATH`, stores the file there, and ends.
 */
import { fstatSync, openSync } from 'node:fs'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

import { openS3Store } from '#store/s3/s3-store.ts'
import { ANY } from '#store/store.ts'
import { s3OptionsOf } from '#test/servers/bucket.ts'

const [endpoint = '', region = '', accessKey = '', secretKey = '', url = '', file = ''] = process.argv.slice(2)
const quick = { probe: false, attemptsMax: 1, ioTimeoutMs: 0, partBytes: 5 * 2 ** 20 }
const store = await openS3Store(url, s3OptionsOf({ endpoint, region, accessKey, secretKey }, quick))
const fd = openSync(file, 'r')
const whole = { fd, offset: 0, length: fstatSync(fd).size }
const lines = createInterface({ input: process.stdin })
process.stdout.write('ready\n')
const [line] = (await once(lines, 'line')) as [string]
const [what, path = ''] = line.split(' ')
if (what === 'put') await store.put(path, { kind: 'file', segments: [whole] }, { guard: ANY })
else {
  const upload = await store.beginUpload?.(path, { attributes: {} })
  await upload?.send(0, fd)
  await upload?.commit(whole, new Set(), { guard: ANY })
}
await store.close()
process.exit(0)
