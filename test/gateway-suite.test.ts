/** The store suite on the S3 store over the gateway over a directory: both ends of the S3 API held to the same rules. */
import { after, before, describe } from 'node:test'

import { openS3Store } from '#store/s3/s3-store.ts'
import { runStoreSuite } from '#store/store-suite.ts'
import { makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

describe('the S3 store on the gateway', () => {
  let server: TestGateway | undefined
  before(async () => {
    server = await startTestGateway()
  })
  after(async () => {
    await server?.stop()
  })

  runStoreSuite(
    'gateway',
    async () => {
      if (server === undefined) throw new Error('The gateway has not started')
      await makeBucket(server, 'suite')
      const store = await openS3Store('s3://suite/a%20prefix/B', s3OptionsOf(server))
      return { store, close: () => store.close() }
    },
    // One request for each put is worth more to the S3 store than seeing what cannot be seen without more of them.
    { treeChecked: false },
  )
})
