/**
 * The XML of the S3 API: documents of elements and text, read with hard bounds and written by hand. DTDs are refused
 * outright, so no entity can be defined and none can expand; text is kept exactly, white space included, since keys are
 * made of it. Line ends that are no references are newlines, as XML has it. Control characters, which XML 1.0 does not
 * have, are read and written as references: S3 has them in keys.
 */
import { parseXml as parsed, XmlElement as Parsed, XmlError, XmlText } from '@rgrove/parse-xml'
import { OperationError } from '#base/errors.ts'

export interface XmlElement {
  readonly name: string
  /** Text directly inside, joined; references decoded. */
  readonly text: string
  readonly children: readonly XmlElement[]
}

/** Deepest nesting that any S3 document has is 5. */
const DEPTH_MAX = 16

/** Characters that XML 1.0 does not have, as they are and as references. */
// oxlint-disable-next-line no-control-regex -- control characters are what must be found
const NOT_XML = /[\u0001-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|&#(?:x[0-9a-f]{1,6}|\d{1,7});/giu

/** The root element. @throws OperationError `INPUT_INVALID` where the text is not well-formed, has a DTD or is too deep. */
export function parseXml(text: string): XmlElement {
  if (text.includes('<!DOCTYPE') || text.includes('<!ENTITY')) throw malformed('it has a DTD')
  let root: Parsed | null
  try {
    // In CDATA a reference is none.
    const source = text.includes('<![CDATA[') ? text : text.replace(NOT_XML, entityOf)
    ;({ root } = parsed(source, { resolveUndefinedEntity: characterOf }))
  } catch (error) {
    // The rest of its message shows the text around.
    if (error instanceof XmlError) throw malformed(error.message.split('\n', 1)[0] ?? '', error)
    // Nested so deeply that it does not fit on the stack.
    if (error instanceof RangeError) throw malformed(error.message, error)
    throw error
  }
  if (root === null) throw malformed('it has no root element')
  return elementOf(root, 0)
}

/** A name for a character that the parser would refuse; anything else as it is. */
function entityOf(found: string): string {
  const code = /^&#x/i.test(found)
    ? Number.parseInt(found.slice(3), 16)
    : found.startsWith('&#')
      ? Number.parseInt(found.slice(2), 10)
      : (found.codePointAt(0) ?? 0)
  const isXml = code === 9 || code === 10 || code === 13 || code < 1 || (code >= 0x20 && code < 0xfffe) || code > 0xffff
  return isXml ? found : `&character-${code};`
}

/** What such a name stands for. */
function characterOf(reference: string): string | undefined {
  const code = /^&character-(\d+);$/.exec(reference)?.[1]
  return code === undefined ? undefined : String.fromCodePoint(Number(code))
}

function elementOf({ name, children: nodes }: Parsed, depth: number): XmlElement {
  if (depth > DEPTH_MAX) throw malformed(`it is nested deeper than ${DEPTH_MAX}`)
  let text = ''
  const children: XmlElement[] = []
  for (const node of nodes) {
    if (node instanceof Parsed) children.push(elementOf(node, depth + 1))
    // CDATA is text, too.
    else if (node instanceof XmlText) text += node.text
  }
  return { name: name.slice(name.indexOf(':') + 1), text, children }
}

function malformed(detail: string, cause?: unknown): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot read XML: ${detail}`, { cause })
}

/** The first child of that name. */
export function childOf(element: XmlElement, name: string): XmlElement | undefined {
  return element.children.find((child) => child.name === name)
}

/** All children of that name. */
export function childrenOf(element: XmlElement, name: string): readonly XmlElement[] {
  return element.children.filter((child) => child.name === name)
}

/** The text of the first child of that name. */
export function textOf(element: XmlElement, name: string): string | undefined {
  return childOf(element, name)?.text
}

/** What `writeXml` takes: text, a number, a truth, elements in order (an undefined content is left out). */
export type XmlContent = string | number | boolean | readonly XmlNode[]
export type XmlNode = readonly [name: string, content: XmlContent | undefined]

/** A document with that root element, in S3's namespace unless another (or none: '') is named. */
export function writeXml(
  root: string,
  content: readonly XmlNode[],
  namespace = 'http://s3.amazonaws.com/doc/2006-03-01/',
): string {
  const attribute = namespace === '' ? '' : ` xmlns="${namespace}"`
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${root}${attribute}>${contentText(content)}</${root}>`
}

function contentText(content: XmlContent): string {
  if (typeof content === 'string') return escapeXml(content)
  if (typeof content !== 'object') return String(content)
  let out = ''
  for (const [name, inner] of content) {
    if (inner !== undefined) out += `<${name}>${contentText(inner)}</${name}>`
  }
  return out
}

/** Escapes text; control characters and line ends as references, which readers keep exactly. */
function escapeXml(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what must be found
  if (!/[&<>"'\u0000-\u001f\u007f]/.test(text)) return text
  // oxlint-disable-next-line no-control-regex -- as above
  return text.replace(/[&<>"'\u0000-\u001f\u007f]/g, (char) => {
    switch (char) {
      case '&':
        return '&amp;'
      case '<':
        return '&lt;'
      case '>':
        return '&gt;'
      case '"':
        return '&quot;'
      default:
        return `&#${char.charCodeAt(0)};`
    }
  })
}
