/** What is left of a mount that was killed, and of one whose staging disk is full: nothing that was acknowledged is lost. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

/** A shell command that runs Python, which opens and closes files without a shell's own closes in between. */
function python(code: string): string {
  const indent = /^\n?( *)/.exec(code)?.[1] ?? ''
  const lines = code.split('\n').map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line))
  return `python3 - <<'EOF'
import errno, os, sys, time
mount, work = os.environ['M'], os.environ['W']
def mark(name): open(work + '/' + name, 'w').close()
def wait_for(name):
    while not os.path.exists(work + '/' + name): time.sleep(0.02)
${lines.join('\n')}
EOF
`
}

/** Waits until a script has marked something as done. */
function waitFor(name: string): string {
  return `for i in $(seq 1000); do [ ! -e "$W/${name}" ] || break; sleep 0.02; done; [ -e "$W/${name}" ]`
}

test(
  '[S19] [S31] after SIGKILL every file that was closed is in the store, and a new mount takes the place of the old',
  { skip },
  async () => {
    await using mount = await BucketMount.start()
    // Files are closed one after another, and each says so after its close; one is open all the time.
    const holding = python(`
      new = os.open(mount + '/open', os.O_RDWR | os.O_CREAT)
      old = os.open(mount + '/d/edited', os.O_RDWR | os.O_APPEND)
      os.write(new, b'unclosed'); os.write(old, b'more')
      mark('written'); wait_for('killed')`)
    const writing = mount.attempt(`
      mkdir "$M/d"; echo old > "$M/d/edited"
      (${holding}) & ${waitFor('written')}
      for i in $(seq 1 100000); do
        head -c $((i * 1117 % 200000)) /dev/zero | tr '\\0' "$((i % 10))" > "$M/d/f$i" || break
        echo $i >> "$W/closed"
      done`)
    for (;;) {
      const { stdout } = await mount.attempt('wc -l < "$W/closed" || echo 0')
      if (Number(stdout) >= 40) break
    }
    await mount.kill()
    await mount.sh('touch "$W/killed"')
    await writing
    assert.notEqual((await mount.attempt('stat "$M/d/f1"')).code, 0)
    await mount.mount()
    await mount.sh(`
      for i in $(cat "$W/closed"); do
        head -c $((i * 1117 % 200000)) /dev/zero | tr '\\0' "$((i % 10))" | cmp - "$M/d/f$i"
        cmp "$M/d/f$i" "$B/d/f$i"
      done
      [ "$(cat "$M/d/edited")" = old ]
      [ ! -e "$M/open" ]
      # What was under way at the end is there whole, or not at all.
      last=$(tail -n 1 "$W/closed"); next=$((last + 1))
      [ ! -e "$M/d/f$next" ] || [ "$(stat -c %s "$M/d/f$next")" = $((next * 1117 % 200000)) ]
      echo works > "$M/after"; [ "$(cat "$B/after")" = works ]`)
    assert.deepEqual(mount.stagedNames, [])
    assert.deepEqual(mount.keptNames, [])
  },
)

test('[S18] a killed mount has published what was synced, and not what was written after that', { skip }, async () => {
  await using mount = await BucketMount.start()
  const holding = mount.attempt(
    python(`
    file = os.open(mount + '/file', os.O_RDWR | os.O_CREAT)
    os.write(file, b'synced'); os.fsync(file)
    os.write(file, b' and more')
    mark('written'); wait_for('killed')`),
  )
  await mount.sh(waitFor('written'))
  await mount.kill()
  await mount.sh('touch "$W/killed"')
  await holding
  await mount.mount()
  assert.equal(await mount.sh('cat "$M/file"'), 'synced')
})

test(
  '[S33] a full staging disk is ENOSPC for the writer, and the stored file stays as it was',
  { skip: skip || (process.getuid?.() === 0 ? false : 'mounting a small disk needs root') },
  async () => {
    const small = mkdtempSync(join(tmpdir(), 'eider-small-'))
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'small', small], { cwd: '/' }).status, 0)
    try {
      await using mount = await BucketMount.start({ staging: join(small, 'staging') })
      await mount.sh('echo before > "$M/file"; head -c 1000000 /dev/zero > "$M/fits"')
      const { stderr, code } = await mount.attempt('head -c 8000000 /dev/zero > "$M/too-large"')
      assert.notEqual(code, 0)
      assert.match(stderr, /No space left on device/)
      const edit = await mount.attempt('head -c 8000000 /dev/zero 1<> "$M/file" >&1')
      assert.notEqual(edit.code, 0)
      const cut = await mount.attempt('head -c 8000000 /dev/zero > "$M/fits"')
      assert.notEqual(cut.code, 0)
      // Whoever does not look at what its write said is told by fsync and by close.
      await mount.sh(
        python(`
          for flags in (os.O_TRUNC, 0):
              file = os.open(mount + '/file', os.O_WRONLY | flags)
              try:
                  while True: os.write(file, bytes(1 << 20))
              except OSError as error:
                  assert error.errno == errno.ENOSPC, error
              for call in (os.fsync, os.close):
                  try:
                      call(file)
                      assert False, 'it was told that all is stored'
                  except OSError as error:
                      assert error.errno == errno.ENOSPC, error`),
      )
      await mount.sh(`
        # The kernel tells the mount of the end of an open file a moment after its close.
        for try in {1..300}; do [ "$(cat "$M/file")" != before ] || [ -e "$M/too-large" ] || break; sleep 0.1; done
        [ "$(cat "$B/file")" = before ]; [ "$(cat "$M/file")" = before ]; [ ! -e "$B/too-large" ]; [ ! -e "$M/too-large" ]
        [ "$(stat -c %s "$B/fits")" = 1000000 ]; head -c 1000000 /dev/zero | cmp - "$M/fits"
        rm -f "$M/file"; echo again > "$M/file"; [ "$(cat "$B/file")" = again ]
        head -c 3000000 /dev/zero > "$M/fits2"; [ "$(stat -c %s "$B/fits2")" = 3000000 ]`)
    } finally {
      spawnSync('umount', ['-l', small], { cwd: '/' })
      rmSync(small, { recursive: true, force: true })
    }
  },
)

test(
  '[S20] a file that awscli replaces while a program edits it: ESTALE, their version stays, ours is kept',
  { skip },
  async () => {
    await using mount = await BucketMount.start()
    await mount.sh(`
    echo base > "$M/shared"; printf theirs > "$W/theirs"
    (${python(`
      file = os.open(mount + '/shared', os.O_RDWR)
      os.write(file, b'ours'); mark('written'); wait_for('replaced')
      try:
          os.close(file)
      except OSError as error:
          assert error.errno == errno.ESTALE, error
          mark('stale')`)}) &
    ${waitFor('written')}
    aws --endpoint-url "$ENDPOINT" s3 cp --only-show-errors "$W/theirs" s3://bucket/shared; touch "$W/replaced"
    wait; [ -e "$W/stale" ]
    sleep 1.1; [ "$(cat "$M/shared")" = theirs ]`)
    assert.match(mount.log, /what was written is kept in/)
    assert.equal(mount.keptNames.length, 1)
  },
)

test('[S22] what others put into the bucket is seen within the validity, and at an open', { skip }, async () => {
  await using mount = await BucketMount.start({ mountArguments: ['--validity', '300ms'] })
  await mount.sh(`
    s3() { aws --endpoint-url "$ENDPOINT" s3 "$@" --only-show-errors; }
    echo one > "$W/one"; echo second > "$W/two"
    s3 cp "$W/one" s3://bucket/dir/file; [ "$(cat "$M/dir/file")" = one ]; ls "$M/dir" > /dev/null
    s3 cp "$W/two" s3://bucket/dir/file; sleep 0.4; [ "$(cat "$M/dir/file")" = second ]; [ "$(stat -c %s "$M/dir/file")" = 7 ]
    s3 cp "$W/one" s3://bucket/dir/new; sleep 0.4; [ "$(ls "$M/dir" | tr '\\n' ' ')" = 'file new ' ]
    s3 rm s3://bucket/dir/file; sleep 0.4; [ ! -e "$M/dir/file" ]
    # The last entry of a directory that was never made goes through the mount: the directory stays.
    rm "$M/dir/new"; [ -d "$M/dir" ]; sleep 0.4; [ -d "$M/dir" ]`)
})

test('a read-only mount lets programs read and refuses the rest', { skip }, async () => {
  await using mount = await BucketMount.start({ mountArguments: ['--read-only'] })
  await mount.sh(`
    printf text > "$W/text"; aws --endpoint-url "$ENDPOINT" s3 cp --only-show-errors "$W/text" s3://bucket/text
    [ "$(cat "$M/text")" = text ]
    ! { echo x > "$M/new"; } 2>/dev/null; ! { echo x >> "$M/text"; } 2>/dev/null; ! rm "$M/text" 2>/dev/null; ! mkdir "$M/d" 2>/dev/null
    [ "$(cat "$M/text")" = text ]`)
})
