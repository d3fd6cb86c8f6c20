#!/usr/bin/env node
/** The launcher: runs the sources in a checkout, the bundle in an installed package, under a Node that fits. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { runUnderNode } from './find-node.js'

const source = fileURLToPath(new URL('../src/main.ts', import.meta.url))
const bundle = fileURLToPath(new URL('../dist/main.js', import.meta.url))
await runUnderNode(existsSync(source) ? source : bundle, process.argv.slice(2))
