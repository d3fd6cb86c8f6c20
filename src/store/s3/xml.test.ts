import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isOperationError } from '#base/errors.ts'
import { childOf, childrenOf, parseXml, textOf, writeXml } from './xml.ts'

test('what is written is read back exactly', () => {
  const keys = [
    'plain',
    ' lead and trail ',
    'a&b<c>"d\'',
    'line\nend\r\ttab',
    '\u0001\u001f\ufffe',
    'ünï\u{1f600}',
    '&amp;',
    '%2F+',
    '',
  ]
  const text = writeXml('List', [
    ['IsTruncated', false],
    ['Count', 9],
    ['Left', undefined],
    ...keys.map((key) => ['Contents', [['Key', key]]] as const),
  ])
  const root = parseXml(text)
  assert.equal(root.name, 'List')
  assert.equal(textOf(root, 'IsTruncated'), 'false')
  assert.equal(textOf(root, 'Count'), '9')
  assert.equal(childOf(root, 'Left'), undefined)
  assert.deepEqual(
    childrenOf(root, 'Contents').map((child) => textOf(child, 'Key')),
    keys,
  )
})

test('CDATA, comments, references and prefixes are understood', () => {
  const root = parseXml(
    '<?xml version="1.0"?>\n<a:R xmlns:a="x"><!-- c --><K><![CDATA[<&>]]></K><K>&#65;&#x42;&quot;</K></a:R>\n',
  )
  assert.equal(root.name, 'R')
  assert.deepEqual(
    root.children.map((child) => child.text),
    ['<&>', 'AB"'],
  )
})

test('control characters are read as they are, too, in either kind of reference, and nothing else is taken for one', () => {
  const root = parseXml('<R><K>\u0001</K><K>&#1;&#x1F;</K><K>&amp;character-1;</K></R>')
  assert.deepEqual(
    root.children.map((child) => child.text),
    ['\u0001', '\u0001\u001f', '&character-1;'],
  )
})

const REFUSED = [
  ['nothing', ''],
  ['text', 'no markup'],
  ['cut', '<A><B>x</B>'],
  ['crossed', '<A><B></A></B>'],
  ['two roots', '<A/><B/>'],
  ['a bomb', '<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]><A>&lol2;</A>'],
  ['an external entity', '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><A>&x;</A>'],
  ['an unknown reference', '<A>&nbsp;</A>'],
  ['a reference to no character', '<A>&#0;</A>'],
  ['a reference past Unicode', '<A>&#x110000;</A>'],
  ['deep nesting', `${'<A>'.repeat(40)}${'</A>'.repeat(40)}`],
] as const

for (const [what, text] of REFUSED) {
  test(`${what} is refused`, () => {
    assert.throws(
      () => parseXml(text),
      (error) => isOperationError(error, 'INPUT_INVALID'),
    )
  })
}
