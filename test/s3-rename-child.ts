/**
 * A process that makes one change in a bucket, for tests that kill it in the middle: `node s3-rename-child.ts ENDPOINT REGION
 * ACCESS_KEY SECRET_KEY URL`. Prints "ready" when the store is open, waits for a line `rename FROM TO` or `exchange A B` on its
 * standard input, and prints "done".
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'

import { openS3Store } from '#store/s3/s3-store.ts'
import { ANY } from '#store/store.ts'

import { s3OptionsOf } from './servers/bucket.ts'

const [endpoint = '', region = '', accessKey = '', secretKey = '', url = ''] = process.argv.slice(2)
const store = await openS3Store(url, s3OptionsOf({ endpoint, region, accessKey, secretKey }))
writeSync(1, 'ready\n')
for await (const line of createInterface({ input: process.stdin })) {
  const [call, from = '', to = ''] = line.split(' ')
  if (call === 'rename') await store.rename(from, to, { guard: ANY, targetGuard: ANY })
  else await store.exchange(from, to, { guard: ANY, otherGuard: ANY })
  writeSync(1, 'done\n')
  break
}
process.stdin.destroy()
await store.close()
