/** `--metrics HOST:PORT`: the values of the metrics for Prometheus at /metrics, and whether the command works at /healthz. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { collectDefaultMetrics } from 'prom-client'
import { registry } from '#base/metrics.ts'
import { listenError } from './listen-error.ts'
import { formatHostPort, type HostPort } from './options.ts'

export interface MetricsServer {
  readonly address: HostPort
  close(): Promise<void>
}

/** Slow and idle clients must not hold anything: there is one request, with no body. */
const REQUEST_MS_MAX = 10_000

/** Serves until closed; `isHealthy` is asked at each look. @throws OperationError `LOCAL_FAILED` where the address is taken. */
export async function serveMetrics(address: HostPort, isHealthy: () => boolean): Promise<MetricsServer> {
  collectDefaultMetrics({ register: registry })
  const server = createServer(
    { requestTimeout: REQUEST_MS_MAX, headersTimeout: REQUEST_MS_MAX },
    (request, response) => {
      const path = request.url?.split('?')[0]
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        response.writeHead(405, { allow: 'GET, HEAD' }).end()
      } else if (path === '/healthz') {
        const healthy = isHealthy()
        response.writeHead(healthy ? 200 : 503, { 'content-type': 'text/plain' }).end(healthy ? 'ok\n' : 'ending\n')
      } else if (path === '/metrics') {
        registry.metrics().then(
          (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
          (error: unknown) => response.writeHead(500).end(String(error)),
        )
      } else {
        response.writeHead(404).end()
      }
    },
  )
  server.maxConnections = 64
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(listenError(`serve metrics at ${formatHostPort(address)}`, address, error, '--metrics'))
    })
    server.listen(address.port, address.host, resolve)
  })
  // Metrics alone are no reason to stay.
  server.unref()
  const { port } = server.address() as AddressInfo
  return {
    address: { host: address.host, port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
