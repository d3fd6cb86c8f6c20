/**
 * The bytes of large files in a mounted bucket: what new ones and edits of them cost in requests and bytes, and what programs
 * find that allocate, make holes, look for them, and copy within the kernel.
 */
import assert from 'node:assert/strict'
import { constants } from 'node:fs'
import { after, before, test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { countsBy } from '#base/metrics.ts'
import { probeFuse } from '#fuse/probe.ts'
import { O_RDWR, rig } from '#mount/kernel-double.ts'
import { openS3Store } from '#store/s3/s3-store.ts'

import { BucketMount } from './bucket-mount.ts'
import { makeBucket, s3OptionsOf } from './servers/bucket.ts'
import { startTestGateway } from './servers/gateway.ts'

setLogLevel('error')

const MIB = 1 << 20

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

let mounted: BucketMount | undefined

before(async () => {
  if (fuse.available) mounted = await BucketMount.start()
})
after(async () => {
  await mounted?.[Symbol.asyncDispose]()
})

/** Runs a script on the mount. */
function program(name: string, script: string): void {
  test(name, { skip }, async () => {
    assert.ok(mounted !== undefined)
    await mounted.sh(script)
  })
}

/** The requests of each kind that `work` made, and the bytes that it sent. */
async function costOf(work: () => Promise<void>): Promise<{ requests: Record<string, number>; bytes: number }> {
  const sum = (counts: ReadonlyMap<string, number>): number => [...counts.values()].reduce((a, b) => a + b, 0)
  const earlier = await countsBy('eider_s3_requests_total')
  const sent = sum(await countsBy('eider_s3_sent_bytes_total'))
  await work()
  const requests: Record<string, number> = {}
  for (const [operation, count] of await countsBy('eider_s3_requests_total')) {
    const more = count - (earlier.get(operation) ?? 0)
    if (more > 0) requests[operation] = more
  }
  return { requests, bytes: sum(await countsBy('eider_s3_sent_bytes_total')) - sent }
}

test('[S43, S46] what a large file and a small edit of it cost on S3', async () => {
  const gateway = await startTestGateway()
  try {
    await makeBucket(gateway, 'bucket')
    const store = await openS3Store('s3://bucket', s3OptionsOf(gateway))
    await using it = await rig(store)
    const { kernel } = it
    const bytes = Buffer.alloc(200 * MIB, 'some bytes. ')
    const made = await costOf(async () => {
      const file = await kernel.create('large')
      for (let at = 0; at < bytes.length; at += MIB) await kernel.write(file, at, bytes.subarray(at, at + MIB))
      await kernel.close(file)
    })
    assert.equal(made.requests['CompleteMultipartUpload'], 1)
    assert.equal(made.requests['UploadPart'], 25)
    assert.equal(made.requests['CopyObject'], undefined, 'times cost no copy')
    assert.ok(made.bytes < 201 * MIB)

    const file = await kernel.open('large', O_RDWR)
    const written = await costOf(async () => {
      await kernel.write(file, 100 * MIB, Buffer.alloc(4096, 'edited'))
    })
    assert.deepEqual(written, { requests: {}, bytes: 0 })
    const closed = await costOf(() => kernel.close(file))
    assert.ok(closed.bytes < 17 * MIB, `an edit of 4 KiB sends less than two parts: ${closed.bytes}`)
    assert.equal(closed.requests['CopyObject'], undefined)
    Buffer.alloc(4096, 'edited').copy(bytes, 100 * MIB)
    assert.ok((await (await store.read('large')).bytes()).equals(bytes))

    const appending = await kernel.open('large', O_RDWR | constants.O_APPEND)
    const appended = await costOf(async () => {
      await kernel.write(appending, 0, 'one line more')
      await kernel.close(appending)
    })
    assert.ok(appended.bytes < 17 * MIB)
    assert.equal((await store.stat('large')).size, bytes.length + 13)
    await store.close()
  } finally {
    await gateway.stop()
  }
})

program(
  '[S48] room is taken, given back and made zero, and holes are found where programs made them',
  `fallocate -l 3M "$M/f"
  test "$(stat -c %s "$M/f")" = 3145728
  head -c 3145728 /dev/urandom > "$W/f"; cat "$W/f" > "$M/f"
  for D in "$W" "$M"; do
    exec 9<> "$D/f"
    fallocate -n -l 5M "$D/f"; test "$(stat -c %s "$D/f")" = 3145728
    fallocate -p -o 1048576 -l 1048576 "$D/f"
    fallocate -z -o 2500000 -l 1000000 "$D/f"
    test "$(stat -c %s "$D/f")" = 3500000
    # Asked while it is open for writing: what is only stored is data.
    python3 -c '
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print(os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 1048576, os.SEEK_DATA), os.lseek(fd, 10, os.SEEK_DATA))
try: os.lseek(fd, 3500000, os.SEEK_DATA)
except OSError as error: print(error.errno)
' "$D/f" > "$W/seek.$(basename "$D")"
    exec 9>&-
  done
  cmp "$W/f" "$M/f"
  diff "$W/seek.work" "$W/seek.mnt"
  if fallocate -c -o 0 -l 4096 "$M/f" 2> "$W/said"; then exit 1; fi
  grep -q 'not supported' "$W/said"`,
)

program(
  '[S49] copy_file_range between files, and within one',
  `head -c 40000000 /dev/urandom > "$W/c"; cp "$W/c" "$M/c"
  cat > "$W/copy.py" <<'PYTHON'
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
left, at = os.fstat(source).st_size, 0
while left > 0:
    copied = os.copy_file_range(source, target, left, at, at)
    assert copied > 0
    left -= copied
    at += copied
back = os.copy_file_range(target, target, 1000, 5, 20000000)
assert back == 1000, back
try:
    os.copy_file_range(target, target, 1000, 5, 500)
    assert False
except OSError as error:
    assert error.errno == 22, error
os.close(target)
PYTHON
  python3 "$W/copy.py" "$W/c" "$W/copied"
  python3 "$W/copy.py" "$M/c" "$M/copied"
  cmp "$W/copied" "$M/copied"`,
)

program(
  '[S44] writes here and there, cuts and appends of a large file are seen as on a local disk',
  `head -c 60000000 /dev/urandom > "$W/e"; cp "$W/e" "$M/e"
  for D in "$W" "$M"; do
    python3 - "$D/e" <<'PYTHON'
import mmap, os, sys
with open(sys.argv[1], 'r+b') as file:
    for at in range(3, 60000000, 7000001):
        file.seek(at); file.write(b'written %d' % at)
    file.flush()
    with mmap.mmap(file.fileno(), 0) as mapping:
        mapping[33000000:33000010] = b'by mapping'
        mapping.flush()
    file.truncate(50000000); file.truncate(52000000)
    os.fsync(file.fileno())
    file.seek(51000000); file.write(b'again')
with open(sys.argv[1], 'ab') as file: file.write(b'the end')
PYTHON
  done
  cmp "$W/e" "$M/e"
  cmp "$W/e" "$B/e"`,
)

program(
  'what is written through a mapping of an appending descriptor stays in its place, and so do writes that no longer append',
  `echo 0123456789 > "$M/mapped"
  python3 - "$M/mapped" <<'PYTHON'
import fcntl, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
with mmap.mmap(fd, 0) as mapping:
    mapping[2:4] = b'MM'
    mapping.flush()
os.write(fd, b'end')
fcntl.fcntl(fd, fcntl.F_SETFL, 0)
os.pwrite(fd, b'W', 5)
os.close(fd)
PYTHON
  printf '01MM4W6789\\nend' | cmp - "$M/mapped"
  printf '01MM4W6789\\nend' | cmp - "$B/mapped"`,
)
