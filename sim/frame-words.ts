/** Frames of the cluster's protocol in words, for traces: what they are, of which message, and under which request id. */
import { bodyOf, readHeader, decodeError } from '#cluster/wire/envelope.ts'
import type { MessageTable } from '#cluster/wire/message.ts'

import type { Describe } from './trace.ts'

/** @param tableOf what the process on a host answers; undefined where it only asks */
export function frameWords(tableOf: (host: string) => MessageTable | undefined): Describe {
  return (frame, receiver, sender) => {
    const { what, kind, shard, client, slot, sequence } = readHeader(frame)
    const name = tableOf(what === 'request' ? receiver : sender)?.find(kind)?.name ?? `kind ${kind}`
    const id = `${client.toString(36)}:${slot}:${sequence}`
    const target = shard === 0 ? '' : ` shard ${shard}`
    const why = what === 'refusal' ? ` ${decodeError(bodyOf(frame)).code}` : ''
    return `${what} "${name}"${target} ${id}${why}`
  }
}
