#!/usr/bin/env node
/**
 * What mount(8) runs for the type `eider`, once it is linked as /sbin/mount.eider (and /sbin/mount.fuse.eider): the launcher,
 * with a word before the arguments that says who calls.
 */
import { existsSync, realpathSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'

// A link in /sbin leads here; what lies beside is beside the file itself.
const here = pathToFileURL(realpathSync(fileURLToPath(import.meta.url)))
const { runUnderNode } = await import(new URL('find-node.js', here).href)
const source = fileURLToPath(new URL('../src/main.ts', here))
const bundle = fileURLToPath(new URL('../dist/main.js', here))
await runUnderNode(existsSync(source) ? source : bundle, ['mount.eider', ...process.argv.slice(2)])
