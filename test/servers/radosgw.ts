/**
 * A throw-away Ceph S3 server on loopback, for tests against a server that others wrote: one monitor, one OSD in
 * memory, one radosgw, in a temporary directory and on free ports. Needs the Debian packages radosgw, ceph-mon and
 * ceph-osd. The processes end with `stop`, and with this process however that ends (their parent-death signal).
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePorts } from './free-port.ts'

const run = promisify(execFile)

export interface Radosgw {
  readonly endpoint: string
  readonly region: string
  readonly accessKey: string
  readonly secretKey: string
  stop(): Promise<void>
}

const PROGRAMS = ['ceph-mon', 'ceph-osd', 'radosgw', 'radosgw-admin', 'monmaptool', 'ceph-authtool', 'ceph']

/** Why radosgw cannot run here, for a skipped test; undefined where it can. */
export function radosgwMissing(): string | undefined {
  const missing = PROGRAMS.filter((name) => !existsSync(`/usr/bin/${name}`))
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')} (radosgw, ceph-mon, ceph-osd)`
}

/** Starts a server with no buckets, in about two seconds. */
export async function startRadosgw(): Promise<Radosgw> {
  const directory = await mkdtemp(join(tmpdir(), 'eider-radosgw-'))
  const children: ChildProcess[] = []
  const stop = async (): Promise<void> => {
    // The gateway first: it waits for the others while it ends.
    for (const child of children.toReversed()) await end(child)
    await rm(directory, { recursive: true, force: true })
  }
  try {
    return { ...(await start(directory, children)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function start(directory: string, children: ChildProcess[]): Promise<Omit<Radosgw, 'stop'>> {
  const [port = 0, monitorPort = 0] = await freePorts(2)
  for (const name of ['mon', 'osd', 'run', 'log', 'rgw']) await mkdir(join(directory, name))
  const id = randomUUID()
  await writeFile(join(directory, 'ceph.conf'), configuration(directory, id, port, monitorPort))
  const conf = ['-c', join(directory, 'ceph.conf')]
  const keyring = join(directory, 'keyring')
  const map = join(directory, 'monmap')
  const daemon = (program: string, ...rest: string[]): ChildProcess => {
    const child = spawn('/usr/bin/setpriv', ['--pdeathsig', 'KILL', program, ...conf, ...rest], { stdio: 'ignore' })
    children.push(child)
    return child
  }

  await run('monmaptool', ['--create', '--fsid', id, '--addv', 'a', `[v2:127.0.0.1:${monitorPort}]`, map])
  const create = ['--create-keyring']
  for (const name of ['mon.', 'client.admin', 'client.rgw.a', 'osd.0']) {
    const caps = name === 'mon.' ? ['mon'] : ['mon', 'osd', 'mgr']
    const flags = caps.flatMap((cap) => ['--cap', cap, 'allow *'])
    await run('ceph-authtool', [keyring, ...create.splice(0), '--gen-key', '-n', name, ...flags])
  }
  await run('ceph-mon', [...conf, '--mkfs', '-i', 'a', '--monmap', map, '--keyring', keyring])
  const monitor = daemon('ceph-mon', '-i', 'a', '-f')
  await until('the monitor answers', monitor, () => run('ceph', [...conf, '--connect-timeout', '5', '-s']))

  const osdId = randomUUID()
  await run('ceph', [...conf, 'osd', 'new', osdId])
  await run('ceph', [...conf, 'osd', 'crush', 'add', 'osd.0', '1.0', 'root=default', 'host=h'])
  await run('ceph-osd', [...conf, '-i', '0', '--mkfs', '--osd-uuid', osdId, '--no-mon-config'])
  const osd = daemon('ceph-osd', '-i', '0', '-f')
  await until('the OSD is up', osd, async () => {
    const { stdout } = await run('ceph', [...conf, 'osd', 'stat'])
    if (!stdout.includes('1 up')) throw new Error(stdout)
  })

  const endpoint = `http://127.0.0.1:${port}`
  const gateway = daemon('radosgw', '-n', 'client.rgw.a', '-f')
  await until('radosgw answers', gateway, () => fetch(endpoint).then((response) => response.arrayBuffer()))
  const keys = { accessKey: 'testaccess', secretKey: 'testsecret' }
  await run('radosgw-admin', [
    ...[...conf, '-n', 'client.admin', 'user', 'create', '--uid', 'test', '--display-name', 'Test'],
    ...['--access-key', keys.accessKey, '--secret', keys.secretKey],
  ])
  return { endpoint, region: 'us-east-1', ...keys }
}

/** Runs `check` until it does not throw; gives up after 30 s or when the process has ended. */
async function until(what: string, child: ChildProcess, check: () => Promise<unknown>): Promise<void> {
  const deadline = Date.now() + 30_000
  for (;;) {
    try {
      await check()
      return
    } catch (cause) {
      if (child.exitCode !== null) {
        throw new Error(`Cannot wait until ${what}: it ended with ${child.exitCode}`, { cause })
      }
      if (Date.now() > deadline) throw new Error(`Cannot wait until ${what}: 30 s have passed`, { cause })
      await sleep(50)
    }
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  // Nothing of it is kept, so there is nothing to end cleanly.
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
}

function configuration(directory: string, id: string, port: number, monitorPort: number): string {
  return `[global]
fsid = ${id}
mon host = [v2:127.0.0.1:${monitorPort}/0]
ms bind msgr1 = false
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = ${directory}/keyring
auth allow insecure global id reclaim = false
run dir = ${directory}/run
admin socket = ${directory}/run/$cluster-$name.$pid.asok
log file = ${directory}/log/$name.log
pid file = ${directory}/run/$name.pid
crash dir = ${directory}/log
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon max pg per osd = 2000
mon osd min in ratio = 0
osd class update on start = false
# Some builds have a class directory relative to the working one, without which radosgw fails with EOPNOTSUPP.
osd class dir = /usr/lib/x86_64-linux-gnu/rados-classes
osd class load list = *
osd class default list = *
[mon]
mon data = ${directory}/mon
# Each creation of a pool waits a second otherwise: 12 s to start rather than 2.
paxos propose interval = 0.05
paxos min wait = 0.01
mon data avail crit = 1
mon data avail warn = 1
mon cluster log file = ${directory}/log/cluster.log
[osd]
osd data = ${directory}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd memory target = 1073741824
[client.rgw.a]
rgw data = ${directory}/rgw
# Small reads take 40 ms without tcp_nodelay.
rgw frontends = beast endpoint=127.0.0.1:${port} tcp_nodelay=1
rgw dns name = localhost
rgw enable usage log = false
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = testkey-1=YmluCmJvb3N0CmJvb3N0LWJ1aWxkCmNlcGguY29uZgo=
`
}
