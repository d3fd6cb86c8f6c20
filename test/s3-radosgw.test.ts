/** The store suite on Ceph's S3 server, which honours few conditions: the store has to make up for the others. */
import { after, before, describe } from 'node:test'

import { openS3Store } from '#store/s3/s3-store.ts'
import { runStoreSuite } from '#store/store-suite.ts'
import { makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { radosgwMissing, startRadosgw, type Radosgw } from '#test/servers/radosgw.ts'

const missing = radosgwMissing()

describe('the S3 store on radosgw', { skip: missing }, () => {
  let server: Radosgw | undefined
  before(async () => {
    server = await startRadosgw()
  })
  after(async () => {
    await server?.stop()
  })

  runStoreSuite(
    'radosgw',
    async () => {
      if (server === undefined) throw new Error('radosgw has not started')
      await makeBucket(server, 'suite')
      const store = await openS3Store('s3://suite/a%20prefix/B', s3OptionsOf(server))
      return { store, close: () => store.close() }
    },
    // One request for each put is worth more than seeing what cannot be seen without more of them.
    { treeChecked: false },
  )
})
