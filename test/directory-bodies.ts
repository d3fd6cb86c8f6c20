/** Bodies that say themselves what they should be, so that a reader can tell a whole one from anything else. */

const SIZES = [0, 100, 4096, 70_000, 400_000]

/** Round `round` of writer `index`: two words, then bytes that follow from them; the sizes take turns. */
export function bodyOf(index: number, round: number): Buffer {
  const size = SIZES[(index + round) % SIZES.length] ?? 0
  const body = Buffer.alloc(8 + size, `${index}:${round};`)
  body.writeUInt32LE(index, 0)
  body.writeUInt32LE(round, 4)
  return body
}

/** The round that the body is of. @throws where it is not whole. */
export function roundOf(body: Buffer, index: number): number {
  const round = body.length < 8 ? -1 : body.readUInt32LE(4)
  if (!body.equals(bodyOf(index, round))) throw new Error(`a body of ${body.length} bytes is none that was written`)
  return round
}
