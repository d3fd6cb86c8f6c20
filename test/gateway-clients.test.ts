/**
 * The gateway under clients that others wrote: what each puts, lists, copies and reads back is compared byte for byte,
 * and the odd keys among them with the names of the files in the directory underneath.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdir, readFile, readdir, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test, type TestContext } from 'node:test'

import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

const TIMEOUT_MS = 120_000

/** Keys that some client or server in between is known to get wrong. */
const ODD_KEYS = [
  'with space and  two',
  'plus+plus',
  'per%cent%41',
  'question?mark&and=equals#hash',
  'größe/日本語/😀.txt',
  `quotes'"<&>`,
  'dots/..hidden/...three',
  'semi;colon:at@dollar$comma,',
  'back\\slash',
  'tilde~star*(paren)!',
]

let gateway: TestGateway | undefined

function server(): TestGateway {
  assert.ok(gateway !== undefined, 'the gateway has started')
  return gateway
}

before(async () => {
  gateway = await startTestGateway()
})
after(async () => {
  await gateway?.stop()
})

interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly input?: string | Buffer
  readonly fails?: boolean
}

/** Runs a program to its end; fails unless it exits with 0. */
async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const child = spawn(command, args, {
    env: { PATH: '/usr/bin:/bin:/usr/sbin:/sbin', HOME: server().directory, LC_ALL: 'C.UTF-8', ...options.env },
    cwd: options.cwd ?? server().directory,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS)
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
  child.stdin.on('error', () => {})
  child.stdin.end(options.input)
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', resolve)
  })
  clearTimeout(timer)
  const ran = { status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }
  if (options.fails !== true) {
    assert.equal(status, 0, `${command} ${args.join(' ')}\n${ran.stdout}\n${ran.stderr}`)
  }
  return ran
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function assertSameFile(path: string, expected: Buffer): Promise<void> {
  assert.equal(sha256(await readFile(path)), sha256(expected), `${path} has the bytes that were put`)
}

/** The file that an object is in the directory under the gateway. */
function stored(bucket: string, key: string): string {
  return join(server().root, bucket, key)
}

/** A directory of a test's own for its local files. */
async function local(name: string): Promise<string> {
  const path = join(server().directory, name)
  await mkdir(path, { recursive: true })
  return path
}

function missing(path: string): string | undefined {
  return existsSync(path) ? undefined : `${path} is not installed`
}

function awsEnv(): Record<string, string> {
  return {
    AWS_ACCESS_KEY_ID: server().accessKey,
    AWS_SECRET_ACCESS_KEY: server().secretKey,
    AWS_DEFAULT_REGION: 'us-east-1',
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_CONFIG_FILE: '/dev/null',
    AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
    AWS_PAGER: '',
  }
}

describe('awscli', { skip: missing('/usr/bin/aws') }, () => {
  const aws = (...args: string[]): Promise<Ran> =>
    run('/usr/bin/aws', ['--endpoint-url', server().endpoint, ...args], { env: awsEnv() })

  test('puts, lists, copies, moves, reads and removes, whole and in parts', async () => {
    const dir = await local('awscli')
    const small = randomBytes(1000)
    const large = randomBytes(20 << 20)
    await writeFile(join(dir, 'small'), small)
    await writeFile(join(dir, 'large'), large)
    await aws('s3', 'mb', 's3://awscli')
    await aws('s3', 'cp', join(dir, 'small'), 's3://awscli/dir/small', '--content-type', 'text/x-odd')
    await aws('s3', 'cp', join(dir, 'large'), 's3://awscli/dir/large', '--metadata', 'colour=blue')
    await assertSameFile(stored('awscli', 'dir/small'), small)
    await assertSameFile(stored('awscli', 'dir/large'), large)
    const head = JSON.parse((await aws('s3api', 'head-object', '--bucket', 'awscli', '--key', 'dir/large')).stdout)
    assert.equal(head.ContentLength, large.length)
    assert.equal(head.Metadata.colour, 'blue')
    assert.match(head.ETag, /^"[0-9a-f]{32}-3"$/)
    const listed = await aws('s3', 'ls', '--recursive', 's3://awscli')
    assert.match(listed.stdout, /\b20971520 dir\/large\n/)
    assert.match(listed.stdout, /\b1000 dir\/small\n/)
    assert.match((await aws('s3', 'ls', 's3://awscli')).stdout, /PRE dir\//)
    await aws('s3', 'cp', 's3://awscli/dir/large', 's3://awscli/copy/large')
    await assertSameFile(stored('awscli', 'copy/large'), large)
    await aws('s3', 'mv', 's3://awscli/copy/large', 's3://awscli/moved')
    assert.equal(existsSync(stored('awscli', 'copy')), false, 'a directory goes with its last object')
    await aws('s3', 'cp', 's3://awscli/moved', join(dir, 'back'))
    await assertSameFile(join(dir, 'back'), large)
    await aws('s3', 'rm', '--recursive', 's3://awscli')
    assert.deepEqual(await readdir(stored('awscli', '')), [])
    await aws('s3', 'rb', 's3://awscli')
    assert.doesNotMatch((await aws('s3', 'ls')).stdout, /awscli/)
  })

  test('synchronises a tree of odd names both ways', async () => {
    const from = await local('awscli-from')
    const to = await local('awscli-to')
    await aws('s3', 'mb', 's3://awscli-sync')
    // S3 tells times in whole seconds, so a file written in this one would seem newer than its object.
    const earlier = new Date(Date.now() - 10_000)
    for (const key of ODD_KEYS) {
      await mkdir(join(from, key, '..'), { recursive: true })
      await writeFile(join(from, key), key)
      await utimes(join(from, key), earlier, earlier)
    }
    await aws('s3', 'sync', from, 's3://awscli-sync')
    for (const key of ODD_KEYS) assert.equal(await readFile(stored('awscli-sync', key), 'utf8'), key)
    await aws('s3', 'sync', 's3://awscli-sync', to)
    for (const key of ODD_KEYS) assert.equal(await readFile(join(to, key), 'utf8'), key)
    const again = await aws('s3', 'sync', from, 's3://awscli-sync')
    assert.equal(again.stdout, '', 'nothing is left to do')
    await aws('s3', 'rm', '--recursive', 's3://awscli-sync')
  })

  test('presigns a URL that curl reads, until it is tampered with', async () => {
    const dir = await local('awscli-presign')
    const bytes = randomBytes(300_000)
    await writeFile(join(dir, 'file'), bytes)
    await aws('s3', 'mb', 's3://awscli-presign')
    await aws('s3', 'cp', join(dir, 'file'), 's3://awscli-presign/a +b%')
    const url = (await aws('s3', 'presign', 's3://awscli-presign/a +b%', '--expires-in', '60')).stdout.trim()
    await run('/usr/bin/curl', ['-sSf', '-o', join(dir, 'back'), url])
    await assertSameFile(join(dir, 'back'), bytes)
    const refused = await run('/usr/bin/curl', ['-s', '-w', '%{http_code}', url.replace('a%20', 'b%20')])
    assert.match(refused.stdout, /<Code>SignatureDoesNotMatch<\/Code>.*403$/s)
  })
})

describe('s3cmd', { skip: missing('/usr/bin/s3cmd') }, () => {
  const s3cmd = async (...args: string[]): Promise<Ran> => {
    const { host, port, accessKey, secretKey, directory } = server()
    const config = join(directory, 's3cfg')
    const lines = [
      '[default]',
      `access_key = ${accessKey}`,
      `secret_key = ${secretKey}`,
      `host_base = ${host}:${port}`,
      `host_bucket = ${host}:${port}`,
      'use_https = False',
      'signature_v2 = False',
    ]
    await writeFile(config, lines.join('\n'))
    return run('/usr/bin/s3cmd', ['-c', config, '--no-progress', ...args])
  }

  test('puts, lists, copies, reads and removes, whole and in parts', async () => {
    const dir = await local('s3cmd')
    const large = randomBytes(20 << 20)
    await writeFile(join(dir, 'large'), large)
    await writeFile(join(dir, 'small'), 'small')
    await s3cmd('mb', 's3://s3cmd')
    await s3cmd('put', '--multipart-chunk-size-mb=6', join(dir, 'large'), 's3://s3cmd/a/large')
    await s3cmd('put', '--add-header=x-amz-meta-colour:red', join(dir, 'small'), 's3://s3cmd/a/sm all+%')
    await assertSameFile(stored('s3cmd', 'a/large'), large)
    assert.match((await s3cmd('ls', '-r', 's3://s3cmd')).stdout, /20971520 +s3:\/\/s3cmd\/a\/large/)
    assert.match((await s3cmd('ls', 's3://s3cmd')).stdout, /DIR +s3:\/\/s3cmd\/a\//)
    assert.match((await s3cmd('info', 's3://s3cmd/a/sm all+%')).stdout, /x-amz-meta-colour: red/)
    await s3cmd('cp', 's3://s3cmd/a/large', 's3://s3cmd/b/large')
    await s3cmd('get', 's3://s3cmd/b/large', join(dir, 'back'))
    await assertSameFile(join(dir, 'back'), large)
    await s3cmd('mv', 's3://s3cmd/a/sm all+%', 's3://s3cmd/moved')
    assert.equal(await readFile(stored('s3cmd', 'moved'), 'utf8'), 'small')
    await s3cmd('info', 's3://s3cmd')
    await s3cmd('del', '--recursive', '--force', 's3://s3cmd')
    await s3cmd('rb', 's3://s3cmd')
    assert.equal(existsSync(stored('s3cmd', '')), false)
  })

  test('synchronises a tree of odd names both ways', async () => {
    const from = await local('s3cmd-from')
    const to = await local('s3cmd-to')
    await s3cmd('mb', 's3://s3cmd-sync')
    for (const key of ODD_KEYS) {
      await mkdir(join(from, key, '..'), { recursive: true })
      await writeFile(join(from, key), key)
    }
    await s3cmd('sync', `${from}/`, 's3://s3cmd-sync/')
    for (const key of ODD_KEYS) assert.equal(await readFile(stored('s3cmd-sync', key), 'utf8'), key)
    await s3cmd('sync', 's3://s3cmd-sync/', `${to}/`)
    for (const key of ODD_KEYS) assert.equal(await readFile(join(to, key), 'utf8'), key)
  })
})

describe('rclone', { skip: missing('/usr/bin/rclone') }, () => {
  const rclone = (args: string[], options: RunOptions = {}): Promise<Ran> =>
    run('/usr/bin/rclone', ['--retries', '1', ...args], {
      ...options,
      env: {
        RCLONE_CONFIG: '/dev/null',
        RCLONE_CONFIG_R_TYPE: 's3',
        RCLONE_CONFIG_R_PROVIDER: 'Other',
        RCLONE_CONFIG_R_ENDPOINT: server().endpoint,
        RCLONE_CONFIG_R_ACCESS_KEY_ID: server().accessKey,
        RCLONE_CONFIG_R_SECRET_ACCESS_KEY: server().secretKey,
        RCLONE_CONFIG_R_FORCE_PATH_STYLE: 'true',
      },
    })

  test('copies a tree, odd names and large files among it, checks it, and removes it', async () => {
    const from = await local('rclone-from')
    const to = await local('rclone-to')
    const large = randomBytes(20 << 20)
    await writeFile(join(from, 'large'), large)
    // rclone shows a line end as another character, and so stores one of its own; see the names it is told.
    for (const key of ODD_KEYS) {
      await mkdir(join(from, key, '..'), { recursive: true })
      await writeFile(join(from, key), key)
    }
    await rclone(['mkdir', 'R:rclone'])
    await rclone(['copy', '--s3-upload-cutoff', '6M', '--s3-chunk-size', '6M', from, 'R:rclone/tree'])
    await assertSameFile(stored('rclone', 'tree/large'), large)
    for (const key of ODD_KEYS) assert.equal(await readFile(stored('rclone', `tree/${key}`), 'utf8'), key)
    await rclone(['check', '--download', from, 'R:rclone/tree'])
    const again = await rclone(['copy', '-v', from, 'R:rclone/tree'])
    assert.doesNotMatch(again.stderr, /Copied/, 'nothing is left to do')
    await rclone(['copy', 'R:rclone/tree', 'R:rclone/second'])
    await rclone(['copy', 'R:rclone/second', to])
    for (const key of ODD_KEYS) assert.equal(await readFile(join(to, key), 'utf8'), key)
    await assertSameFile(join(to, 'large'), large)
    const listed = (await rclone(['lsf', '-R', '--files-only', 'R:rclone/tree'])).stdout
    assert.deepEqual(listed.trimEnd().split('\n').toSorted(), ['large', ...ODD_KEYS].toSorted())
    await rclone(['moveto', 'R:rclone/second/large', 'R:rclone/large'])
    await rclone(['rcat', 'R:rclone/streamed'], { input: large })
    await assertSameFile(stored('rclone', 'streamed'), large)
    await rclone(['purge', 'R:rclone'])
    assert.equal(existsSync(stored('rclone', '')), false)
  })
})

describe('boto3', { skip: missing('/usr/bin/python3') ?? missing('/usr/lib/python3/dist-packages/boto3') }, () => {
  const python = async (script: string): Promise<Ran> => {
    const path = join(server().directory, 'script.py')
    const start = [
      'import boto3, botocore, io, os, hashlib, urllib.request',
      'from botocore.config import Config',
      `s3 = boto3.client('s3', endpoint_url='${server().endpoint}', config=Config(signature_version='s3v4', s3={'addressing_style': 'path'}))`,
      `keys = ${JSON.stringify([...ODD_KEYS, 'new\nline', 'carriage\rreturn', 'tab\tand\u0001control'])}`,
    ]
    await writeFile(path, [...start, script].join('\n'))
    return run('/usr/bin/python3', [path], { env: awsEnv() })
  }

  test('puts, lists and reads odd keys, control characters among them', async () => {
    await python(`
s3.create_bucket(Bucket='boto')
for key in keys:
    s3.put_object(Bucket='boto', Key=key, Body=key.encode(), Metadata={'of': 'mine'})
listed = [o['Key'] for page in s3.get_paginator('list_objects_v2').paginate(Bucket='boto', PaginationConfig={'PageSize': 3}) for o in page['Contents']]
assert listed == sorted(keys, key=lambda k: k.encode()), listed
first = [o['Key'] for page in s3.get_paginator('list_objects').paginate(Bucket='boto', PaginationConfig={'PageSize': 3}) for o in page['Contents']]
assert first == listed, first
for key in keys:
    got = s3.get_object(Bucket='boto', Key=key)
    assert got['Body'].read() == key.encode(), key
    assert got['Metadata'] == {'of': 'mine'}
    assert got['ETag'] == '"' + hashlib.md5(key.encode()).hexdigest() + '"'
    s3.copy_object(Bucket='boto', Key='copy of ' + key, CopySource={'Bucket': 'boto', 'Key': key})
    assert s3.head_object(Bucket='boto', Key='copy of ' + key)['ContentLength'] == len(key.encode())
    url = s3.generate_presigned_url('get_object', Params={'Bucket': 'boto', 'Key': key}, ExpiresIn=60)
    assert urllib.request.urlopen(url).read() == key.encode(), key
# No XML 1.0 document can name this one in its answer.
s3.delete_object(Bucket='boto', Key=keys[-1])
s3.delete_object(Bucket='boto', Key='copy of ' + keys.pop())
answer = s3.delete_objects(Bucket='boto', Delete={'Objects': [{'Key': k} for k in keys] + [{'Key': 'copy of ' + k} for k in keys]})
assert len(answer['Deleted']) == 2 * len(keys) and 'Errors' not in answer, answer
assert 'Contents' not in s3.list_objects_v2(Bucket='boto')
s3.delete_bucket(Bucket='boto')
`)
  })

  test('uploads and downloads in parts, reads ranges, and copies in parts', async () => {
    await python(`
from boto3.s3.transfer import TransferConfig
s3.create_bucket(Bucket='boto-parts')
data = os.urandom(23 * 1024 * 1024 + 7)
config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
s3.upload_fileobj(io.BytesIO(data), 'boto-parts', 'large', Config=config, ExtraArgs={'ContentType': 'text/plain', 'CacheControl': 'no-cache'})
back = io.BytesIO()
s3.download_fileobj('boto-parts', 'large', back, Config=config)
assert back.getvalue() == data
head = s3.head_object(Bucket='boto-parts', Key='large')
assert head['ContentType'] == 'text/plain' and head['CacheControl'] == 'no-cache' and head['ETag'].endswith('-5"'), head
part = s3.get_object(Bucket='boto-parts', Key='large', PartNumber=2)
assert part['Body'].read() == data[5 << 20:10 << 20] and part['PartsCount'] == 5
for text, want in [('bytes=0-0', data[:1]), ('bytes=-5', data[-5:]), ('bytes=24117000-', data[24117000:])]:
    got = s3.get_object(Bucket='boto-parts', Key='large', Range=text)
    assert got['Body'].read() == want and got['ResponseMetadata']['HTTPStatusCode'] == 206
try:
    s3.get_object(Bucket='boto-parts', Key='large', Range='bytes=%d-' % len(data))
    assert False
except botocore.exceptions.ClientError as e:
    assert e.response['Error']['Code'] == 'InvalidRange', e
s3.copy({'Bucket': 'boto-parts', 'Key': 'large'}, 'boto-parts', 'copied', Config=config)
assert s3.get_object(Bucket='boto-parts', Key='copied')['Body'].read() == data
try:
    s3.delete_bucket(Bucket='boto-parts')
    assert False
except botocore.exceptions.ClientError as e:
    assert e.response['Error']['Code'] == 'BucketNotEmpty', e
`)
  })

  test('is told what a bucket is configured for, in the words of S3', async () => {
    await python(`
s3.create_bucket(Bucket='boto-conf')
def code(call, **args):
    try:
        call(Bucket='boto-conf', **args)
    except botocore.exceptions.ClientError as e:
        return e.response['Error']['Code']
assert s3.get_bucket_location(Bucket='boto-conf')['LocationConstraint'] is None
assert 'Status' not in s3.get_bucket_versioning(Bucket='boto-conf')
assert s3.get_bucket_acl(Bucket='boto-conf')['Grants'][0]['Permission'] == 'FULL_CONTROL'
assert s3.get_bucket_acl(Bucket='boto-conf')['Grants'][0]['Grantee']['Type'] == 'CanonicalUser'
assert code(s3.get_bucket_policy) == 'NoSuchBucketPolicy'
assert code(s3.get_bucket_tagging) == 'NoSuchTagSet'
assert code(s3.get_bucket_lifecycle_configuration) == 'NoSuchLifecycleConfiguration'
assert code(s3.get_bucket_cors) == 'NoSuchCORSConfiguration'
assert code(s3.get_bucket_encryption) == 'ServerSideEncryptionConfigurationNotFoundError'
assert code(s3.list_object_versions) == 'NotImplemented'
assert code(s3.put_object, Key='k', Body=b'', ServerSideEncryption='AES256') == 'NotImplemented'
assert code(s3.put_object, Key='k', Body=b'', ACL='public-read') == 'AccessControlListNotSupported'
assert code(s3.put_object, Key='k', Body=b'', StorageClass='GLACIER') == 'InvalidStorageClass'
assert code(s3.put_bucket_versioning, VersioningConfiguration={'Status': 'Enabled'}) == 'NotImplemented'
assert code(s3.create_bucket) == 'BucketAlreadyOwnedByYou'
s3.put_object(Bucket='boto-conf', Key='k', Body=b'')
assert s3.get_object_tagging(Bucket='boto-conf', Key='k')['TagSet'] == []
`)
  })
})

function mountRefused(): string | undefined {
  const gone = missing('/usr/bin/s3fs')
  if (gone !== undefined) return gone
  if (process.getuid?.() !== 0) return 's3fs is mounted as root only'
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
    return undefined
  } catch {
    return '/dev/fuse cannot be opened'
  }
}

describe('s3fs', { skip: mountRefused() }, () => {
  test('mounts a bucket in which files are written, renamed, copied, listed and removed', async (t: TestContext) => {
    const { endpoint, accessKey, secretKey } = server()
    const dir = await local('s3fs')
    const mountPoint = await local('s3fs/mnt')
    const passwords = join(dir, 'passwd')
    await writeFile(passwords, `${accessKey}:${secretKey}`, { mode: 0o600 })
    await mkdir(stored('s3fs-bucket', ''))
    const large = randomBytes(25 << 20)
    await writeFile(join(dir, 'large'), large)
    const options = `url=${endpoint},use_path_request_style,sigv4,endpoint=us-east-1,passwd_file=${passwords},multipart_size=10,retries=1`
    await run('/usr/bin/s3fs', ['s3fs-bucket', mountPoint, '-o', options])
    t.after(() => run('/usr/bin/timeout', ['20', 'umount', '-l', mountPoint], { fails: true }))
    const shell = (script: string): Promise<Ran> => run('/usr/bin/timeout', ['60', 'sh', '-ec', script], { cwd: dir })
    await shell('mkdir -p mnt/a/b; cp large mnt/a/b/large; cmp large mnt/a/b/large; echo hello > "mnt/a/with space +%"')
    await assertSameFile(stored('s3fs-bucket', 'a/b/large'), large)
    assert.equal(await readFile(stored('s3fs-bucket', 'a/with space +%'), 'utf8'), 'hello\n')
    await shell('mv mnt/a/b/large mnt/moved; cmp large mnt/moved; chmod 600 mnt/moved; ln -s moved mnt/link')
    assert.equal((await shell('stat -c %a mnt/moved; readlink mnt/link; ls mnt/a/b | wc -l')).stdout, '600\nmoved\n0\n')
    await shell('echo more >> mnt/moved; rm -r mnt/a; test ! -e mnt/a')
    await assertSameFile(stored('s3fs-bucket', 'moved'), Buffer.concat([large, Buffer.from('more\n')]))
    await shell('umount mnt')
  })
})
