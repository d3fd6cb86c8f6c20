/** What `eider up` says: what is where, what to try, and that it has ended. */
import { VERSION } from './version.ts'

export interface Welcome {
  readonly data: string
  /** Undefined where there is no mount. */
  readonly folder: string | undefined
  /** Why there is none. */
  readonly refused: string | undefined
  readonly endpoint: string
  readonly bucket: string
  readonly accessKey: string
  readonly secretKey: string
  readonly logs: string
  /** The usual port, where another program has it. */
  readonly portTaken: number | undefined
}

/** The screen after the start. */
export function welcome(facts: Welcome): string {
  const { data, folder, refused, endpoint, bucket, accessKey, secretKey, logs, portTaken } = facts
  const lines = [`eider ${VERSION} is up`, '']
  const line = (name: string, value: string): void => void lines.push(`  ${name.padEnd(14)}${value}`)
  if (folder !== undefined) line('folder', folder)
  line('S3 endpoint', endpoint)
  line('bucket', bucket)
  line('access key', accessKey)
  line('secret key', secretKey)
  line('kept in', `${data}/${bucket}`)
  line('logs', logs)
  if (portTaken !== undefined)
    lines.push('', `  Port ${portTaken} is taken by another program, so this is another one.`)
  if (refused !== undefined) {
    lines.push(
      '',
      `  There is no folder: ${refused}.`,
      '  "eider doctor" tells what is missing; the S3 API works without.',
    )
  }
  lines.push('', 'Try', '')
  if (folder !== undefined) {
    lines.push(`  cp -r /usr/share/common-licenses ${shellWord(folder)} && ls -l ${shellWord(folder)}`)
  }
  lines.push(
    `  export AWS_ACCESS_KEY_ID=${accessKey} AWS_SECRET_ACCESS_KEY=${secretKey} AWS_DEFAULT_REGION=us-east-1`,
    `  aws --endpoint-url ${endpoint} s3 ls --recursive s3://${bucket}/`,
    '',
    'Ctrl-C ends it; what was written stays, and the next start finds it.',
    '',
  )
  return lines.join('\n')
}

/**
 * What became of the last writes when the mount ended: all stored, some kept beside, some lost; broken where it was killed
 * and told nothing.
 */
export type MountEnding = 'stored' | 'kept' | 'lost' | 'broken'

/** The last line. */
export function goodbye(data: string, ending: MountEnding): string {
  switch (ending) {
    case 'stored':
      return `Ended; all that was written is in ${data}`
    case 'kept':
      return 'Ended; some of what was written could not be stored: the log of the mount tells where it is kept'
    case 'lost':
      return 'Ended; some of what was written may be lost: the log of the mount tells what'
    case 'broken':
      return `Ended; the mount was killed: every file closed before is in ${data}, what was still open then is not`
  }
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
