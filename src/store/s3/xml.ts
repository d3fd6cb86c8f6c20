/**
 * The XML of the S3 API: documents of elements and text, read with hard bounds and written by hand. DTDs are refused
 * outright, so no entity can be defined and none can expand; text is kept exactly, white space and line ends included,
 * since keys are made of it.
 */
import { XMLParser, XMLValidator } from 'fast-xml-parser'
import { OperationError } from '#base/errors.ts'

export interface XmlElement {
  readonly name: string
  /** Text directly inside, joined; references decoded. */
  readonly text: string
  readonly children: readonly XmlElement[]
}

/** Deepest nesting that any S3 document has is 5. */
const DEPTH_MAX = 16

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: true,
  removeNSPrefix: true,
  trimValues: false,
  parseTagValue: false,
  processEntities: false,
  ignoreDeclaration: true,
  ignorePiTags: true,
  cdataPropName: '#cdata',
})

type Ordered = Record<string, unknown>

/** The root element. @throws OperationError `INPUT_INVALID` where the text is not well-formed, has a DTD or is too deep. */
export function parseXml(text: string): XmlElement {
  if (text.includes('<!DOCTYPE') || text.includes('<!ENTITY')) throw malformed('it has a DTD')
  const valid = XMLValidator.validate(text)
  if (valid !== true) throw malformed(`${valid.err.msg} (line ${valid.err.line})`)
  let nodes: Ordered[]
  try {
    nodes = parser.parse(text) as Ordered[]
  } catch (error) {
    throw malformed(error instanceof Error ? error.message : String(error), error)
  }
  const roots = nodes.filter((node) => !('#text' in node))
  const [root] = roots
  if (root === undefined || roots.length !== 1) throw malformed('it has no root element')
  return elementOf(root, 0)
}

function elementOf(node: Ordered, depth: number): XmlElement {
  if (depth > DEPTH_MAX) throw malformed(`it is nested deeper than ${DEPTH_MAX}`)
  const name = Object.keys(node).find((key) => key !== ':@') ?? ''
  let text = ''
  const children: XmlElement[] = []
  for (const inner of node[name] as Ordered[]) {
    if ('#text' in inner) text += decodeReferences(String(inner['#text']))
    else if ('#cdata' in inner) text += (inner['#cdata'] as Ordered[]).map((part) => String(part['#text'])).join('')
    else children.push(elementOf(inner, depth + 1))
  }
  return { name, text, children }
}

const NAMED: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function decodeReferences(text: string): string {
  if (!text.includes('&')) return text
  return text.replace(
    /&(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|([a-z]+));/g,
    (whole, hex: string, decimal: string, name: string) => {
      if (name !== undefined) {
        const known = NAMED[name]
        if (known === undefined) throw malformed(`it has the unknown reference ${whole}`)
        return known
      }
      const code = hex === undefined ? Number.parseInt(decimal, 10) : Number.parseInt(hex, 16)
      if (code > 0x10ffff) throw malformed(`it has the reference ${whole}, which is no character`)
      return String.fromCodePoint(code)
    },
  )
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
