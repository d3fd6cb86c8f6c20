/**
 * TLS as an option of the network: the server shows a certificate, the client checks it against the cluster's own authority. Who the
 * client is, is proved by the secret, bound to the session, so clients need no certificate.
 */
import { createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'

import { OperationError } from '#base/errors.ts'

/** PEM texts. Who listens needs `key` and `cert`; who connects `ca`, where the machine does not trust that authority anyway. */
export interface TlsOptions {
  readonly key?: string
  readonly cert?: string
  readonly ca?: string
}

/** 1.3 alone: the exported keys of older ones do not always belong to one session. */
export const TLS_VERSION_MIN = 'TLSv1.3'

const EXPORTER_LABEL = 'EXPORTER-eider-wire-1'
const BINDING_BYTES = 32

/** @throws OperationError `USAGE` for a PEM text that is none */
export function secureContextOf({ key, cert, ca }: TlsOptions): SecureContext {
  try {
    return createSecureContext({
      minVersion: TLS_VERSION_MIN,
      ...(key !== undefined && { key }),
      ...(cert !== undefined && { cert }),
      ...(ca !== undefined && { ca }),
    })
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('USAGE', `Cannot use the key and certificates of TLS: ${detail}`, {
      cause: error,
      hint: 'They are PEM files: the private key, its certificate, and the certificate of the authority that signed it.',
    })
  }
}

/** What both ends of that session can tell, and nobody else. */
export function bindingOf(socket: TLSSocket): Buffer {
  return socket.exportKeyingMaterial(BINDING_BYTES, EXPORTER_LABEL, Buffer.alloc(0))
}

/** Whether an error before TLS stands is one of the connection, not of what was said in it. */
export function isOfNetwork(error: Error): boolean {
  return 'syscall' in error || ('code' in error && error.code === 'ECONNRESET')
}
