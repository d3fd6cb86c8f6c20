/**
 * Writes the pages of docs/operating/ that are made from the program's own tables: options, errors, metrics. With
 * `--check` it writes nothing and ends with 1 where a page differs from what it would write.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { ERRNO } from '#base/errno.ts'
import { ERRORS } from '#base/errors.ts'
import { METRICS } from '#base/metrics.ts'
import { groupOf, sectionOf } from '#cli/command.ts'
import { COMMANDS } from '#cli/commands.ts'
import { optionUsage, usageOf } from '#cli/help.ts'
import { type OptionRow, variableOf } from '#cli/options.ts'
import { BLOCK_MESSAGES } from '#cluster/block/block-messages.ts'
import { COORDINATOR_MESSAGES } from '#cluster/coordinator/coordinator-messages.ts'
import { REGISTRY_MESSAGES } from '#cluster/registry/registry-messages.ts'
import { OPENAPI_PATH, ROUTES } from '#cluster/registry/http-routes.ts'
import { openApi } from '#cluster/registry/openapi.ts'
import { SHARD_MESSAGES } from '#cluster/shard/shard-messages.ts'
import type { Codec, StructCodec } from '#cluster/wire/codec.ts'
import { WIRE_VERSION } from '#cluster/wire/envelope.ts'

const FOLDER = 'docs/operating'
const NOTE = 'Generated from the program by `npm run docs`; do not edit.'

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(heads), `|${heads.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}

function optionsPage(): string {
  const sections = COMMANDS.map((command) => {
    const group = COMMANDS.find(({ name }) => name === groupOf(command.name))
    const own = Object.entries(command.options).filter(([key]) => group?.options[key] === undefined)
    const rows = own.map(([key, row]) => [
      `\`${optionUsage(key, row)}\``,
      row.secret ? '' : `\`${variableOf(key)}\``,
      row.secret || key === 'config' ? '' : `\`${key}\``,
      row.defaultText ?? '',
      meaningOf(row),
    ])
    return [
      `## ${usageOf(command)}`,
      '',
      command.description,
      '',
      `Section in eider.json: \`${sectionOf(command.name)}\`.`,
      '',
      ...(rows.length === 0 ? [] : [table(['Option', 'Variable', 'Key', 'Default', 'Meaning'], rows), '']),
      ...(group === undefined ? [] : [`And those of \`eider ${group.name}\`.`, '']),
    ].join('\n')
  })
  return [
    '# Options',
    '',
    NOTE,
    '',
    'Each option can be given as a flag, as a variable or in `eider.json`, and they win in this order; what none gives has its',
    'default. `eider.json` is looked for in the working directory and upwards, or named by `--config`. It holds an object for each',
    'command, and beside them keys that hold for every command which has such an option:',
    '',
    '```json',
    '{ "logLevel": "debug", "mount": { "readOnly": true } }',
    '```',
    '',
    'Relative paths in `eider.json` are relative to its folder. A switch is turned off by `--no-FLAG`, which takes no value; as a',
    'variable or in `eider.json` by `false` or `0`. What may be given several times is a list of texts in `eider.json`, and as a',
    'variable lines of text. Names of flags may be written with underscores for dashes.',
    '',
    ...sections,
  ].join('\n')
}

function meaningOf(row: OptionRow<unknown>): string {
  if (row.placeholder === undefined && !row.secret) return row.help
  return `${row.help}; ${row.expected}${row.isMany ? '; may be given several times' : ''}`
}

function errorsPage(): string {
  const rows = Object.entries(ERRORS).map(([code, { errno, status, retry, level, meaning, hint }]) => [
    `\`${code}\``,
    meaning,
    hint,
    `${errno} (${ERRNO[errno]})`,
    String(status),
    retry,
    level,
  ])
  return [
    '# Errors',
    '',
    NOTE,
    '',
    'Every error of operation has one of these codes; it is in the log as `code`, of each call that failed at level debug. The errno is what a program in a mount sees, the',
    'status what a client of the S3 gateway sees; retry says whether the program itself tries again.',
    '',
    table(['Code', 'Meaning', 'What to do', 'errno', 'HTTP', 'Retry', 'Log level'], rows),
    '',
  ].join('\n')
}

function metricsPage(): string {
  const rows = Object.entries(METRICS).map(([name, { kind, labels, help }]) => [
    `\`${name}\``,
    kind,
    labels.map((label) => `\`${label}\``).join(', '),
    help,
  ])
  return [
    '# Metrics',
    '',
    NOTE,
    '',
    'Served in the text format of Prometheus at `/metrics` of the address given by `--metrics HOST:PORT`, with the metrics of the',
    'process itself (`process_…`, `nodejs_…`) beside them. A metric appears when it is first used. `/healthz` answers 200 while the',
    'command does its work, else 503.',
    '',
    table(['Name', 'Kind', 'Labels', 'Meaning'], rows),
    '',
  ].join('\n')
}

function registryApiPage(): string {
  const rows = ROUTES.map(({ method, path, summary }) => [`\`${method.toUpperCase()} ${path}\``, summary])
  return [
    '# The HTTP API of the registry',
    '',
    NOTE,
    '',
    'Served on the port of the registry (docs/operating/registry.md says to whom), and described by itself at',
    `\`${OPENAPI_PATH}\` (OpenAPI 3.1), which is:`,
    '',
    table(['Request', 'What it does'], rows),
    '',
    '```json',
    JSON.stringify(openApi(), null, 2),
    '```',
    '',
  ].join('\n')
}

/** Fields of a message, one a line; those of a struct within it as they are. */
function fieldsOf(codec: Codec<unknown>): string {
  if (!('fields' in codec)) return codec.form
  const fields = Object.entries((codec as StructCodec<unknown>).fields)
  return fields.length === 0 ? 'nothing' : fields.map(([name, { form }]) => `**${name}**: ${form}`).join('<br>')
}

function messagesPage(): string {
  const sections = [REGISTRY_MESSAGES, SHARD_MESSAGES, COORDINATOR_MESSAGES, BLOCK_MESSAGES].map((messages) => {
    const rows = messages.messages.map(({ kind, name, does, isInternal, meaning, request, reply }) => [
      `0x${kind.toString(16).padStart(2, '0')}`,
      `\`${name}\``,
      `${meaning}${does === 'write' ? '' : ' Changes nothing.'}${isInternal ? ' For processes of the cluster alone.' : ''}`,
      fieldsOf(request),
      fieldsOf(reply),
    ])
    return [`## ${messages.title}`, '', table(['Kind', 'Name', 'Meaning', 'Request', 'Reply'], rows), ''].join('\n')
  })
  return [
    '# Messages of the cluster',
    '',
    NOTE,
    '',
    'What the frames of [wire.md](wire.md) carry. A message begins with this header, and goes on with its fields, one after the other:',
    '',
    table(
      ['Offset', 'Form', 'What'],
      [
        ['0', 'u8', '1 request, 2 reply, 3 refusal, 4 request of a process of the cluster'],
        ['1', 'u8', `version: ${WIRE_VERSION}`],
        ['2', 'u16', 'kind: the row of the tables below, by who is asked'],
        ['4', 'u8', 'of a request to a shard process: which shard; otherwise 0'],
        ['5', 'u53', 'client: random, for each start of one, never 0'],
        ['13', 'u16', 'slot of the client'],
        ['15', 'u53', 'sequence: the number of the request in its slot, from 1 on'],
      ],
    ),
    '',
    'Client, slot and sequence are the id of a request. A request that is sent again has the same id and is done once: who answers writes keeps the',
    'last answer of each slot, gives it again, and refuses smaller numbers with `REQUEST_STALE`. So a client has one request at a time in a slot. A refusal has three texts:',
    'code (at most 64 bytes), message and hint (at most 4,096 each); the codes are those of [errors.md](../operating/errors.md).',
    '',
    'All numbers are little-endian. u53 is a whole number below 2^53 in eight bytes. A text or a list has its count before it (u8 for texts of at most 255 bytes, otherwise u32).',
    '',
    ...sections,
  ].join('\n')
}

const pages: readonly (readonly [string, string])[] = [
  ['options.md', optionsPage()],
  ['errors.md', errorsPage()],
  ['metrics.md', metricsPage()],
  ['../formats/registry-api.md', registryApiPage()],
  ['../formats/messages.md', messagesPage()],
]
const check = process.argv.includes('--check')
for (const [name, text] of pages) {
  const path = `${FOLDER}/${name}`
  if (!check) {
    writeFileSync(path, text)
  } else if (readIfThere(path) !== text) {
    process.stderr.write(`${path} is not up to date: run "npm run docs"\n`)
    process.exitCode = 1
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
