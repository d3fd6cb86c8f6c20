/**
 * The gateway over a directory as a program of its own, for tests that kill it and benchmarks that count its CPU alone:
 * gateway-process.ts ROOT STAGING ACCESS_KEY SECRET_KEY. Prints its port, ends with its stdin.
 */
import { startGateway } from '#gateway/gateway.ts'
import { openDirectoryStore } from '#store/directory-store.ts'

const [root = '', stagingDirectory = '', accessKey = '', secretKey = ''] = process.argv.slice(2)
const store = await openDirectoryStore(root)
const { address } = await startGateway({ store, host: '127.0.0.1', port: 0, accessKey, secretKey, stagingDirectory })
process.stdout.write(`${address.port}\n`)
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
