/**
 * Answers to requests that may take minutes (a copy, a completed upload): as S3, after some seconds the head goes out
 * and spaces follow it, so that no client or proxy on the way gives the connection up; an error is then in the document
 * under status 200, where S3's clients look for it.
 */
import { writeXml, type XmlNode } from '#store/s3/xml.ts'

import { s3ErrorOf } from './errors.ts'
import type { Exchange } from './exchange.ts'

const PATIENCE_MS = 5000

/** Answers with the document that `describe` makes of the result. */
export async function answerSlowly<T>(
  exchange: Exchange,
  work: Promise<T>,
  describe: (result: T) => readonly [root: string, content: readonly XmlNode[]],
): Promise<void> {
  const { res } = exchange
  const timer = setInterval(() => {
    if (!res.headersSent) {
      exchange.head(200, ['Content-Type', 'application/xml'])
      res.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    }
    res.write(' ')
  }, PATIENCE_MS)
  try {
    const [root, content] = describe(await work)
    if (res.headersSent) res.end(withoutDeclaration(writeXml(root, content)))
    else exchange.answerXml(root, content)
  } catch (error) {
    if (!res.headersSent) throw error
    res.end(withoutDeclaration(exchange.errorDocument(s3ErrorOf(error))))
  } finally {
    clearInterval(timer)
  }
}

function withoutDeclaration(document: string): string {
  return document.slice(document.indexOf('?>') + 2)
}
