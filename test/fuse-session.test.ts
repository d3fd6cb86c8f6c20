/**
 * The FUSE session against the kernel: a file system in memory, mounted, and used by ordinary programs.
 */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, rmdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { MemoryFileSystem } from './memory-file-system.ts'
import {
  MOUNT_OPTIONS,
  mountMemory,
  nodeProgram,
  run,
  start,
  startProgram,
  until,
  withDirectory,
  withMount,
} from './memory-mount.ts'
import type { Caller, EntryAnswer, NodeId } from '#fuse/file-system.ts'
import { ROOT_NODE } from '#fuse/file-system.ts'
import { probeFuse } from '#fuse/probe.ts'
import { FOPEN_DIRECT_IO, FUSE_FLAGS2_PASSTHROUGH } from '#fuse/protocol.ts'
import { isOperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { mountFuse } from '#os/fuse-mount.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { clearStaleMount, probeMountPoint } from '#os/mount-point.ts'
import { mountsOf } from '#os/mount-table.ts'
import { setReadAhead } from '#os/read-ahead.ts'

// Defects of the file system are part of the test, and logged as errors.
setLogLevel('silent')

const root = { skip: process.getuid?.() === 0 ? false : 'needs root to mount', timeout: 60_000 }
const HOUR_MS = 3_600_000

/** A file system whose writes and directories wait for a gate. */
class GatedFileSystem extends MemoryFileSystem {
  readonly #gate = Promise.withResolvers<void>()
  waiting = 0
  waitingMost = 0

  letThrough(): void {
    this.#gate.resolve()
  }

  async #pass(): Promise<void> {
    this.waiting += 1
    this.waitingMost = Math.max(this.waitingMost, this.waiting)
    await this.#gate.promise
    this.waiting -= 1
  }

  override async write(id: NodeId, handle: number, offset: number, data: Uint8Array): Promise<number> {
    await this.#pass()
    return super.write(id, handle, offset, data)
  }

  override async mkdir(
    parent: NodeId,
    name: string,
    mode: number,
    umask: number,
    caller: Caller,
  ): Promise<EntryAnswer> {
    await this.#pass()
    return super.mkdir(parent, name, mode, umask, caller)
  }
}

/** A read that waits for its own interruption. */
function untilInterrupted(aborted: () => void): (caller: Caller) => Promise<void> {
  return (caller) =>
    new Promise((_resolve, reject) => {
      caller.signal.addEventListener('abort', () => {
        aborted()
        reject(caller.signal.reason as Error)
      })
    })
}

describe('ordinary programs', root, () => {
  for (const slowly of [false, true]) {
    test(`files and directories, answered ${slowly ? 'later' : 'at once'}`, root, async () => {
      const fileSystem = new MemoryFileSystem()
      fileSystem.slowly = slowly
      await withMount(fileSystem, async ({ directory }) => {
        const script = `set -e; cd ${directory}
          echo first > a; echo second >> a; cat a
          mkdir d; mv a d/b; ln -s d/b l; cat l; readlink l
          cp d/b 'ünï ☃ code'; rm d/b; rmdir d; ls
          chmod 640 'ünï ☃ code'; stat -c '%a %s %F' 'ünï ☃ code'
          touch -d '1960-01-02 03:04:05.5 UTC' old; TZ=UTC stat -c %y old
          truncate -s 3 old; stat -c %s old; : > old; stat -c %s old
          cat missing 2>&1 || true`
        const { stdout, stderr, code } = await run(script)
        assert.equal(stderr, '')
        assert.equal(code, 0)
        assert.deepEqual(stdout.trim().split('\n'), [
          'first',
          'second',
          'first',
          'second',
          'd/b',
          'l',
          'ünï ☃ code',
          '640 13 regular file',
          '1960-01-02 03:04:05.500000000 +0000',
          '3',
          '0',
          'cat: missing: No such file or directory',
        ])
      })
    })
  }

  test('a file of 9 MiB arrives whole, both ways', root, async () => {
    const fileSystem = new MemoryFileSystem()
    await withMount(fileSystem, async ({ directory }) => {
      const sums = `cd ${directory} && head -c 9437187 /dev/urandom > /tmp/$$ && cp /tmp/$$ big && sha256sum < /tmp/$$ && sha256sum < big; rm /tmp/$$`
      const { stdout, code } = await run(sums)
      assert.equal(code, 0)
      const [written, read] = stdout.trim().split('\n')
      assert.equal(read, written)
    })
  })

  test('a directory of 10,000 entries is listed with attributes, without a lookup of each', root, async () => {
    const fileSystem = new MemoryFileSystem()
    fileSystem.validMs = HOUR_MS
    for (let index = 0; index < 10_000; index += 1) fileSystem.put(`file-${index}`, 'x'.repeat(index % 7))
    await withMount(fileSystem, async ({ directory }) => {
      const { stdout } = await run(
        `ls -l ${directory} | awk 'NR > 1 { files += 1; bytes += $5 } END { print files, bytes }'`,
      )
      assert.equal(stdout.trim(), '10000 29994')
      const count = (method: string): number => fileSystem.calls.filter((call) => call === method).length
      assert.ok(count('lookup') <= 10, `${count('lookup')} lookups`)
      assert.ok(count('readdirplus') <= 100, `${count('readdirplus')} listings`)
    })
  })

  test('extended attributes', root, async () => {
    const fileSystem = new MemoryFileSystem()
    fileSystem.put('file', '')
    await withMount(fileSystem, async ({ directory }) => {
      const { stdout, stderr } = await startProgram(
        nodeProgram(`
          import { xattrGet, xattrNames, xattrRemove, xattrSet } from '#os/xattr.ts'
          const file = ${JSON.stringify(join(directory, 'file'))}
          xattrSet(file, 'user.colour', Buffer.from('blue'))
          xattrSet(file, 'user.large', Buffer.alloc(10_000, 7))
          console.log(xattrNames(file).join(), Buffer.from(xattrGet(file, 'user.colour')).toString(), xattrGet(file, 'user.large').length)
          xattrRemove(file, 'user.large')
          console.log(xattrNames(file).join())`),
      ).outcome
      assert.equal(stderr, '')
      assert.equal(stdout, 'user.colour,user.large blue 10000\nuser.colour\n')
    })
  })

  test('a write by somebody else takes the set-user-id bit away', root, async () => {
    const fileSystem = new MemoryFileSystem()
    fileSystem.put('program', 'x').mode = 0o106777
    await withMount(fileSystem, async ({ directory }) => {
      const nobody = 'setpriv --reuid 65534 --regid 65534 --clear-groups'
      const { stdout, stderr } = await run(
        `cd ${directory}; ${nobody} sh -c 'echo more >> program'; stat -c %a program`,
      )
      assert.equal(stderr, '')
      assert.equal(stdout, '777\n')
    })
  })

  test('a name that is removed is forgotten', root, async () => {
    const fileSystem = new MemoryFileSystem()
    const { id } = fileSystem.put('file', '')
    await withMount(fileSystem, async ({ directory }) => {
      await run(`cd ${directory}; stat file; rm file`)
      await until('the kernel forgets the file', () => !fileSystem.references.has(id))
    })
  })

  test('a defect of the file system is EIO, and the session goes on', root, async () => {
    const fileSystem = new MemoryFileSystem()
    fileSystem.put('broken', '')
    fileSystem.put('file', 'fine')
    fileSystem.readlink = () => {
      throw new TypeError('a defect')
    }
    const getattr = fileSystem.getattr.bind(fileSystem)
    fileSystem.getattr = (node) => {
      const found = getattr(node)
      if (node !== 2 || found instanceof Promise) return found
      return { ...found, attributes: { ...found.attributes, size: Number.NaN } }
    }
    await withMount(fileSystem, async ({ directory }) => {
      const { stdout, stderr } = await run(`cd ${directory}; cat broken; cat file`)
      assert.match(stderr, /broken: Input\/output error/)
      assert.equal(stdout, 'fine')
    })
  })
})

describe('requests that wait', root, () => {
  test('a reader that is killed has its request aborted, and ends', root, async () => {
    const fileSystem = new MemoryFileSystem()
    fileSystem.openFlags = FOPEN_DIRECT_IO
    let aborted = false
    fileSystem.blocked.set(
      fileSystem.put('slow', 'content').id,
      untilInterrupted(() => (aborted = true)),
    )
    await withMount(fileSystem, async ({ directory, session }) => {
      const { outcome, child } = start(`exec cat ${directory}/slow`)
      await until('the read is in flight', () => session.inFlight === 1)
      // timeout(1) passes the signal on to cat.
      child.kill('SIGTERM')
      assert.notEqual((await outcome).code, 0)
      assert.equal(aborted, true)
      await until('nothing is in flight', () => session.inFlight === 0)
      assert.equal((await run(`stat -c %s ${directory}/slow`)).stdout, '7\n')
    })
  })

  test('more writes than buffers wait their turn, and keep their bytes', root, async () => {
    const fileSystem = new GatedFileSystem()
    await withMount(fileSystem, async ({ directory, session }) => {
      const writers = Array.from({ length: 40 }, (_, index) =>
        run(`printf 'content of %s' ${index} > ${directory}/${index}`),
      )
      await until('every buffer is lent', () => fileSystem.waiting === 32)
      fileSystem.letThrough()
      assert.deepEqual([...new Set((await Promise.all(writers)).map(({ code }) => code))], [0])
      assert.ok(fileSystem.waitingMost <= 32)
      for (let index = 0; index < 40; index += 1) {
        assert.equal(fileSystem.root.children.get(String(index))?.data.toString(), `content of ${index}`)
      }
      await until('nothing is in flight', () => session.inFlight === 0)
    })
  })

  test('a notification that needs the lock of a waiting request lets the session go on', root, async () => {
    const fileSystem = new GatedFileSystem()
    fileSystem.put('file', 'served meanwhile')
    // The kernel must know the name already: to look it up it would need the lock of the directory too.
    fileSystem.validMs = HOUR_MS
    await withMount(fileSystem, async ({ directory, session }) => {
      await run(`cat ${directory}/file`)
      const made = run(`mkdir ${directory}/new`)
      await until('the mkdir waits', () => fileSystem.waiting === 1)
      let notified = false
      const notification = session.notifier.invalidateEntry(ROOT_NODE, 'new').then((held) => {
        notified = true
        return held
      })
      assert.equal((await run(`cat ${directory}/file`)).stdout, 'served meanwhile')
      assert.equal(notified, false)
      fileSystem.letThrough()
      await notification
      assert.equal((await made).code, 0)
    })
  })

  test('destroy fails what is in flight, and what a signal does not reach', root, async () => {
    const fileSystem = new MemoryFileSystem()
    const forever = new Promise<void>(() => undefined)
    fileSystem.blocked.set(fileSystem.put('slow', 'content').id, () => forever)
    await withMount(fileSystem, async ({ directory, session }) => {
      const reader = run(`cat ${directory}/slow`)
      await until('the read is in flight', () => session.inFlight === 1)
      await session.destroy()
      assert.equal(await session.ended, 'destroyed')
      assert.match((await reader).stderr, /Input\/output error|not connected|abort/)
      assert.equal(session.inFlight, 0)
      assert.equal(await probeMountPoint(directory), 'stale')
    })
  })
})

describe('notifications', root, () => {
  test('show a change that the kernel would not ask for within its hour', root, async () => {
    const fileSystem = new MemoryFileSystem()
    fileSystem.validMs = HOUR_MS
    const file = fileSystem.put('file', 'old')
    await withMount(fileSystem, async ({ directory, session }) => {
      const size = async (): Promise<string> => (await run(`stat -c %s ${directory}/file`)).stdout.trim()
      const exists = async (name: string): Promise<boolean> => (await run(`stat ${directory}/${name}`)).code === 0
      assert.equal(await size(), '3')
      file.data = Buffer.from('newer content')
      assert.equal(await size(), '3')
      assert.equal(await session.notifier.invalidateNode(file.id, 0, 0), true)
      assert.equal(await size(), '13')
      assert.equal((await run(`cat ${directory}/file`)).stdout, 'newer content')

      assert.equal(await exists('late'), false)
      fileSystem.put('late', '')
      assert.equal(await exists('late'), false)
      assert.equal(await session.notifier.invalidateEntry(ROOT_NODE, 'late'), true)
      assert.equal(await exists('late'), true)

      fileSystem.root.children.delete('file')
      assert.equal(await exists('file'), true)
      assert.equal(await session.notifier.deleteEntry(ROOT_NODE, file.id, 'file'), true)
      assert.equal(await exists('file'), false)
    })
  })

  test('say whether the kernel held anything', root, async () => {
    await withMount(new MemoryFileSystem(), async ({ session }) => {
      const { notifier } = session
      assert.equal(await notifier.invalidateEntry(ROOT_NODE, 'never seen'), false)
      assert.equal(await notifier.invalidateNode(999, 0, 0), false)
      assert.equal(await notifier.deleteEntry(ROOT_NODE, 998, 'never seen'), false)
      await session.destroy()
      assert.equal(await notifier.invalidateNode(ROOT_NODE, 0, 0), false)
    })
  })
})

describe('ends', root, () => {
  test('unmounting by anybody ends an idle session', root, async () => {
    await withMount(new MemoryFileSystem(), async ({ directory, session }) => {
      assert.equal((await run(`umount ${directory}`)).code, 0)
      assert.equal(await session.ended, 'unmounted')
      assert.equal(await probeMountPoint(directory), 'free')
    })
  })

  test('a connection that is aborted is told from an unmount', root, async () => {
    await withMount(new MemoryFileSystem(), async ({ directory, session }) => {
      const [, minor] = mountsOf(directory).at(-1)?.device.split(':') ?? []
      const control = await mkdtemp(join(tmpdir(), 'eider-fusectl-'))
      await run(`mount -t fusectl none ${control} && echo 1 > ${control}/${minor}/abort; umount ${control}`)
      assert.equal(await session.ended, 'aborted')
      await rmdir(control)
    })
  })

  test('a busy mount says who uses it, and goes lazily', root, async () => {
    await withMount(new MemoryFileSystem(), async ({ directory, session }) => {
      const { child, outcome } = start(`cd ${directory} && exec sleep 30`)
      await until(
        'the mount is in use',
        async () => (await run(`ls -l /proc/*/cwd 2>&1 | grep -q ' ${directory}$'`)).code === 0,
      )
      await assert.rejects(unmountFuse(directory), (error) => {
        assert.ok(isOperationError(error, 'MOUNT_BUSY'))
        assert.match(error.message, /in use by \d+ \(sleep\)/)
        return true
      })
      await unmountFuse(directory, { lazy: true })
      assert.equal(await probeMountPoint(directory), 'free')
      child.kill('SIGTERM')
      await outcome
      assert.equal(await session.ended, 'unmounted')
    })
  })

  test('the mount of a killed server is stale, cleared, and mounted again', root, async () => {
    await withDirectory(async (directory) => {
      const { child } = startProgram(
        nodeProgram(`
          import { MemoryFileSystem } from '#test/memory-file-system.ts'
          import { mountMemory } from '#test/memory-mount.ts'
          const fileSystem = new MemoryFileSystem()
          fileSystem.validMs = ${HOUR_MS}
          await mountMemory(${JSON.stringify(directory)}, fileSystem)`),
      )
      const exited = new Promise((resolve) => child.once('exit', resolve))
      await until(
        'it is mounted',
        async () => (await run(`mountpoint -q ${directory} && stat ${directory}`)).code === 0,
      )
      assert.equal(await probeMountPoint(directory), 'mounted')
      assert.equal(await clearStaleMount(directory), false)
      child.kill('SIGKILL')
      await exited
      assert.equal(await probeMountPoint(directory), 'stale')
      assert.equal(await clearStaleMount(directory), true)
      assert.equal(await probeMountPoint(directory), 'free')
      const fileSystem = new MemoryFileSystem()
      fileSystem.put('file', 'again')
      const { session } = await mountMemory(directory, fileSystem)
      assert.equal((await run(`cat ${directory}/file`)).stdout, 'again')
      await unmountFuse(directory)
      assert.equal(await session.ended, 'unmounted')
    })
  })

  test('a mount that hangs is told as mounted, within the deadline', root, async () => {
    const fileSystem = new MemoryFileSystem()
    const waiting = Promise.withResolvers<never>()
    await withMount(fileSystem, async ({ directory }) => {
      fileSystem.statfs = () => waiting.promise
      assert.equal(await probeMountPoint(directory, 100), 'mounted')
      waiting.reject(new Error('the test is over'))
    })
  })
})

describe('mount points', root, () => {
  const mountOn = (directory: string): Promise<unknown> => mountFuse({ ...MOUNT_OPTIONS, directory })
  const unusable = (detail: RegExp) => (error: unknown) =>
    isOperationError(error, 'MOUNT_POINT_UNUSABLE') && detail.test(error.message)

  test('that will not do are refused, each with its reason', root, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'eider-fuse-test-'))
    try {
      await assert.rejects(mountOn(join(directory, 'missing')), unusable(/does not exist/))
      await writeFile(join(directory, 'file'), '')
      await assert.rejects(mountOn(join(directory, 'file')), unusable(/not a directory/))
      await mkdir(join(directory, 'full', 'entry'), { recursive: true })
      await assert.rejects(mountOn(join(directory, 'full')), unusable(/not empty/))
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  test('that are taken are refused, and the read-ahead of a mount can be raised', root, async () => {
    await withMount(new MemoryFileSystem(), async ({ directory }) => {
      await assert.rejects(mountOn(directory), unusable(/'memory' \(fuse\.eider-test\) is mounted there already/))
      assert.equal(await setReadAhead(directory, 1_048_576), 1_048_576)
    })
  })

  test('are probed for what the machine allows', root, async () => {
    const probe = await probeFuse()
    assert.equal(probe.available, true)
    assert.match(probe.protocol ?? '', /^7\.\d+$/)
    assert.equal(probe.passthrough, probe.passthroughWhy === undefined)
  })

  test('passthrough is asked for only by who wants it', root, async () => {
    await withMount(new MemoryFileSystem(), async ({ session }) => {
      assert.equal((await session.initialised).flags2 & FUSE_FLAGS2_PASSTHROUGH, 0)
    })
  })
})

describe('without root', root, () => {
  /** Runs `code` as nobody, where /dev/fuse has that mode: in a mount namespace of its own. */
  async function asNobody(deviceMode: string, code: string): Promise<string> {
    const directory = await mkdtemp(join(tmpdir(), 'eider-device-'))
    const [program = '', ...args] = nodeProgram(code)
    const inside = `mknod ${directory}/fuse c 10 229 && chmod ${deviceMode} ${directory}/fuse && mount --bind ${directory}/fuse /dev/fuse &&
      exec setpriv --reuid 65534 --regid 65534 --clear-groups timeout -k 1 40 "$@"`
    try {
      const { stdout, stderr } = await startProgram([
        'unshare',
        '--mount',
        '--propagation',
        'private',
        'sh',
        '-c',
        inside,
        'sh',
        program,
        ...args,
      ]).outcome
      assert.equal(stderr, '')
      return stdout
    } finally {
      await rm(directory, { recursive: true })
    }
  }
  const imports = `
    import { mkdtemp, rmdir } from 'node:fs/promises'
    import { MemoryFileSystem } from '#test/memory-file-system.ts'
    import { mountMemory, run } from '#test/memory-mount.ts'
    import { unmountFuse } from '#os/fuse-unmount.ts'
    const directory = await mkdtemp('/tmp/eider-fuse-test-')
    const fileSystem = new MemoryFileSystem()
    fileSystem.put('file', 'seen')`

  test('fusermount3 mounts and unmounts', root, async () => {
    const stdout = await asNobody(
      '666',
      `${imports}
      const { session, how } = await mountMemory(directory, fileSystem, {}, false)
      const { stdout } = await run('cat ' + directory + '/file; cp ' + directory + '/file ' + directory + '/copy; stat -c %U ' + directory + '/copy')
      await unmountFuse(directory)
      console.log(how, stdout.trim().replace('\\n', ' '), await session.ended)
      await rmdir(directory)`,
    )
    assert.equal(stdout, 'fusermount3 seennobody unmounted\n')
  })

  const refused = `${imports}
    try {
      await mountMemory(directory, fileSystem, {}, ALLOW_OTHER)
    } catch (error) {
      console.log(error.code, error.message.replace(directory, 'DIR'))
    }
    await rmdir(directory)`

  test('a refusal has the reason that the helper gave', root, async () => {
    assert.equal(
      await asNobody('666', refused.replace('ALLOW_OTHER', 'true')),
      'MOUNT_REFUSED Cannot mount on \'DIR\': "allow other" is for root, unless /etc/fuse.conf has the line "user_allow_other"\n',
    )
    assert.match(
      await asNobody('600', refused.replace('ALLOW_OTHER', 'false')),
      /^MOUNT_REFUSED Cannot mount on 'DIR': \/dev\/fuse may not be opened by this user/,
    )
  })
})
