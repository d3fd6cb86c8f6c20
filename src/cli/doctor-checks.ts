/**
 * The looks that `eider doctor` takes. Each is quick, has a time limit where it could hang, changes nothing, and says what
 * it found and what can be done; none throws. The values of secrets are never read into a finding.
 */

export interface Finding {
  readonly subject: string
  /** `weak`: works, but less well; `missing`: a mount cannot work. */
  readonly state: 'ok' | 'weak' | 'missing'
  readonly found: string
  readonly advice?: string
}

/** Every finding, in the order in which they are shown. */
export async function examine(): Promise<Finding[]> {
  return Promise.resolve([{ subject: 'Node', state: 'ok', found: process.version }])
}
