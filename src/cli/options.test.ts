/** Kinds of options: what each takes, what it refuses, and that what it shows it also reads. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  boolean,
  bytes,
  bytesPerSecond,
  choice,
  duration,
  flagOf,
  flagsOf,
  formatBytes,
  formatDuration,
  hostPort,
  httpUrl,
  integer,
  octal,
  path,
  percent,
  secret,
  string,
  texts,
  variableOf,
} from './options.ts'

const help = 'Help'
const TABLE = {
  name: string({ help }),
  readOnly: boolean({ help }),
  metadata: boolean({ help, default: true }),
  count: integer({ help, min: 1, max: 8 }),
  size: bytes({ help, min: 1024 }),
  wait: duration({ help, max: 60_000 }),
  style: choice(['path', 'virtual'], { help }),
  listen: hostPort({ help }),
  file: path({ help }),
  umask: octal({ help, default: 0o022 }),
  endpoint: httpUrl({ help, hint: 'Name it.' }),
  share: percent({ help }),
  rate: bytesPerSecond({ help }),
  include: texts({ help }),
  exclude: texts({ help }),
  secretKey: secret({ help }),
}

const CASES: readonly (readonly [key: keyof typeof TABLE, text: string, value: unknown])[] = [
  ['name', 'x', 'x'],
  ['name', '', undefined],
  ['readOnly', 'true', true],
  ['readOnly', '1', true],
  ['readOnly', 'off', false],
  ['readOnly', 'maybe', undefined],
  ['count', '1', 1],
  ['count', '8', 8],
  ['count', '0', undefined],
  ['count', '9', undefined],
  ['count', '1.5', undefined],
  ['count', '1e0', undefined],
  ['count', '', undefined],
  ['count', ' 3', undefined],
  ['size', '1024', 1024],
  ['size', '1KiB', 1024],
  ['size', '1.5MiB', 1_572_864],
  ['size', '2gib', 2 * 1024 ** 3],
  ['size', '5MB', 5_000_000],
  ['size', '1023B', undefined],
  ['size', '5 parsecs', undefined],
  ['size', '-1', undefined],
  ['wait', '0', 0],
  ['wait', '250ms', 250],
  ['wait', '1s', 1000],
  ['wait', '1m', 60_000],
  ['wait', '61s', undefined],
  ['wait', '10', undefined],
  ['style', 'path', 'path'],
  ['style', 'pa', undefined],
  ['style', 'toString', undefined],
  ['file', 'a/b', 'a/b'],
  ['umask', '027', 0o027],
  ['umask', '0777', 0o777],
  ['umask', '7', 7],
  ['umask', '7777', undefined],
  ['umask', '1777', undefined],
  ['umask', '9', undefined],
  ['umask', '', undefined],
  ['endpoint', 'http://h:9000', 'http://h:9000'],
  ['endpoint', 'https://h/under', 'https://h/under'],
  ['endpoint', 'foo', undefined],
  ['endpoint', 'http:foo', undefined],
  ['endpoint', 'http:///', undefined],
  ['endpoint', 'ftp://a', undefined],
  ['endpoint', 'http://h?x', undefined],
  ['file', 'a\0b', undefined],
  ['share', '50', 50],
  ['share', '50%', 50],
  ['share', '0', 0],
  ['share', '100%', 100],
  ['share', '101', undefined],
  ['share', '-1', undefined],
  ['share', '5.5', undefined],
  ['share', '%', undefined],
  ['rate', '10MiB', 10 * 1024 ** 2],
  ['rate', '10MiB/s', 10 * 1024 ** 2],
  ['rate', '0', 0],
  ['rate', 'off', 0],
  ['rate', '10 apples', undefined],
  ['rate', '10MiB/h', undefined],
]

test('each kind takes what it should and refuses the rest', () => {
  for (const [key, text, value] of CASES)
    assert.deepEqual(TABLE[key].parse(text), value, `${key} ${JSON.stringify(text)}`)
})

test('addresses are host and port, IPv6 in brackets', () => {
  assert.deepEqual(TABLE.listen.parse('127.0.0.1:9000'), { host: '127.0.0.1', port: 9000 })
  assert.deepEqual(TABLE.listen.parse('[::1]:0'), { host: '::1', port: 0 })
  for (const wrong of ['9000', 'host', 'host:', ':80', 'host:65536', '::1:80', 'http://host:80']) {
    assert.equal(TABLE.listen.parse(wrong), undefined, wrong)
  }
})

test('names of flags and variables come from the key', () => {
  assert.equal(flagOf('readOnly'), '--read-only')
  assert.equal(variableOf('readOnly'), 'EIDER_READ_ONLY')
})

test('sizes and times are read as they are shown', () => {
  fc.assert(
    fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER }), (value) => {
      assert.equal(bytes({ help }).parse(formatBytes(value)), value)
      assert.equal(duration({ help }).parse(formatDuration(value)), value)
    }),
    { seed: 1 },
  )
})

test('flags made from values say all of them but the secrets', () => {
  const values = { name: 'n', readOnly: true, metadata: false, count: 3, size: 2048, wait: 1500, secretKey: 'hidden' }
  assert.deepEqual(flagsOf(TABLE, { ...values, listen: { host: '::1', port: 1 }, umask: 0o27 }), [
    '--name=n',
    '--read-only',
    '--no-metadata',
    '--count=3',
    '--size=2KiB',
    '--wait=1500ms',
    '--listen=[::1]:1',
    '--umask=027',
  ])
  assert.deepEqual(flagsOf({ share: TABLE.share, rate: TABLE.rate }, { share: 5, rate: 0 }), [
    '--share=5%',
    '--rate=off',
  ])
})

test('flags of texts stand in the order in which these count, whatever option they are of', () => {
  const values = {
    include: [{ text: 'b', ordinal: 1 }],
    exclude: [
      { text: 'a', ordinal: 0 },
      { text: 'c', ordinal: 2 },
    ],
  }
  assert.deepEqual(flagsOf(TABLE, values), ['--exclude=a', '--include=b', '--exclude=c'])
})
