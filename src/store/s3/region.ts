/**
 * Which region to sign for before the bucket has been asked: the options, the environment, the profile. Where none
 * says, `us-east-1` is asked, whose refusal names the right one.
 */
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

import type { S3Options } from './endpoint.ts'

const REGION_DEFAULT = 'us-east-1'

/** The region to begin with. */
export async function firstRegion(options: S3Options): Promise<string> {
  const { AWS_REGION, AWS_DEFAULT_REGION, AWS_PROFILE, AWS_CONFIG_FILE } = process.env
  const named = options.region ?? (AWS_REGION || AWS_DEFAULT_REGION || undefined)
  if (named !== undefined) return named
  if (options.endpoint !== undefined && options.profile === undefined) return REGION_DEFAULT
  let text: string
  try {
    text = await readFile(AWS_CONFIG_FILE ?? join(homedir(), '.aws', 'config'), 'utf8')
  } catch {
    // No such file is the usual case, and one that cannot be read says no more; the bucket itself is asked then.
    return REGION_DEFAULT
  }
  return profileRegion(text, options.profile ?? AWS_PROFILE ?? 'default') ?? REGION_DEFAULT
}

/** The region that a profile names in the text of `~/.aws/config`. */
export function profileRegion(text: string, profile: string): string | undefined {
  let inside = false
  for (const line of text.split('\n')) {
    const section = /^\s*\[\s*(?:profile\s+)?(.+?)\s*\]/.exec(line)
    if (section !== null) inside = section[1] === profile
    else if (inside) {
      const found = /^region\s*=\s*(\S+)/.exec(line)
      if (found !== null) return found[1]
    }
  }
  return undefined
}
