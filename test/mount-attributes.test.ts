/** Attributes of files in a mounted bucket that are being written while another machine, or the writer, changes them. */
import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { ANY } from '#store/store.ts'

import { BucketMount } from './bucket-mount.ts'
import { until } from './memory-mount.ts'
import { s3OptionsOf } from './servers/bucket.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

test('[S42] chmod by another machine outlives the close of a writer', { skip }, async () => {
  await using mount = await BucketMount.start({ mountArguments: ['--validity', '1ms'] })
  const server = { endpoint: mount.endpoint, region: 'us-east-1', accessKey: 'EIDERTESTKEY' }
  const elsewhere = await openS3Store('s3://bucket', s3OptionsOf({ ...server, secretKey: 'eider/test+secret' }))
  try {
    await mount.sh('echo one > "$M/al"')
    const writer = mount.sh(`python3 - "$M/al" "$W" <<'EOF'
import os, sys, time
path, work = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
os.write(fd, b'two')
open(work + '/written', 'w').close()
while not os.path.exists(work + '/changed'): time.sleep(0.01)
os.close(fd)
EOF`)
    await until('the writer has written', () => existsSync(join(mount.work, 'written')))
    await elsewhere.setAttributes('al', { mode: 0o600 }, { guard: ANY })
    writeFileSync(join(mount.work, 'changed'), '')
    await writer
    assert.equal((await elsewhere.stat('al')).attributes?.mode, 0o600)
    assert.equal(await mount.sh('stat -c %a "$M/al"; cat "$M/al"'), '600\ntwo\n')
  } finally {
    await elsewhere.close()
  }
})

test('a large extended attribute is refused while its file is written, and the file is stored', { skip }, async () => {
  await using mount = await BucketMount.start()
  const said = await mount.sh(`python3 - "$M/xo" <<'EOF'
import errno, os, sys
path = sys.argv[1]
f = open(path, 'w')
f.write('precious')
f.flush()
try:
    os.setxattr(path, 'user.big', b'z' * 3000)
    print('taken')
except OSError as error:
    print(errno.errorcode[error.errno])
os.setxattr(path, 'user.small', b'z')
f.close()
print(os.listxattr(path))
EOF
cat "$M/xo"`)
  assert.equal(said, "ENOSPC\n['user.small']\nprecious")
})
