"""A whole OpenStack Swift in one process, for tests: proxy, account, container and object servers on loopback, over one directory.

    swift-server.py DIRECTORY ENTRIES-OF-A-PAGE

It prints the port of the proxy once all four listen. Rings, users and disks are those of one machine with one replica; the
token of a user is kept in memory, where a real one has memcached. Middleware: what is usual, and bulk deletes and large objects.
"""
import os
import sys
from time import time as now

import eventlet
eventlet.patcher.monkey_patch(all=False, socket=True, select=True, thread=True)

from eventlet import listen, wsgi
from swift.common import utils
from swift.common.utils import NullLogger

directory = sys.argv[1]
with open(os.path.join(directory, 'swift.conf'), 'w') as conf:
    conf.write('[swift-hash]\nswift_hash_path_suffix = for tests\n')
    conf.write(f'[swift-constraints]\ncontainer_listing_limit = {sys.argv[2]}\n')
utils.set_swift_dir(directory)
utils.validate_hash_conf()

from swift.account.server import app_factory as account_server
from swift.common.middleware import bulk, copy, dlo, gatekeeper, listing_formats, proxy_logging, slo, tempauth
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.middleware.catch_errors import filter_factory as catch_errors
from swift.common.ring import RingBuilder
from swift.common.wsgi import RestrictedGreenPool
from swift.container.server import app_factory as container_server
from swift.obj.server import app_factory as object_server
from swift.proxy.server import app_factory as proxy_server


class Memory:
    """What the proxy and TempAuth ask memcached for."""

    def __init__(self):
        self.values = {}

    def get(self, key, **_):
        value, end = self.values.get(key, (None, 0))
        return value if end == 0 or end > now() else None

    def set(self, key, value, time=0, **_):
        self.values[key] = (value, time and now() + time)

    def delete(self, key, **_):
        self.values.pop(key, None)

    def incr(self, key, delta=1, time=0, **_):
        value = int(self.get(key) or 0) + delta
        self.set(key, value, time)
        return value

    def set_multi(self, values, key, time=0, **_):
        for name, value in values.items():
            self.set(f'{key}/{name}', value, time)

    def get_multi(self, keys, key, **_):
        return [self.get(f'{key}/{name}') for name in keys]


def with_memory(app):
    memory = Memory()

    def call(env, start_response):
        env['swift.cache'] = memory
        # For tests of what becomes of a token that is no longer known.
        if env['PATH_INFO'] == '/forget-tokens':
            keys = [key for key in memory.values if '/token/' in key or '/user/' in key]
            for key in keys:
                memory.delete(key)
            body = str(len(keys)).encode()
            start_response('200 OK', [('Content-Length', str(len(body)))])
            return [body]
        return app(env, start_response)
    return call


def serve(socket, app):
    eventlet.spawn(wsgi.server, socket, app, NullLogger(), custom_pool=RestrictedGreenPool(size=1024), protocol=SwiftHttpProtocol,
                   socket_timeout=60, capitalize_response_headers=False)


sockets = {name: listen(('127.0.0.1', 0)) for name in ('proxy', 'account', 'container', 'object')}
os.makedirs(os.path.join(directory, 'devices', 'disk'))
for name in ('account', 'container', 'object'):
    builder = RingBuilder(4, 1, 0)
    port = sockets[name].getsockname()[1]
    builder.add_dev({'id': 0, 'region': 1, 'zone': 1, 'weight': 1, 'device': 'disk', 'ip': '127.0.0.1', 'port': port,
                     'replication_ip': '127.0.0.1', 'replication_port': port, 'meta': ''})
    builder.rebalance()
    builder.get_ring().save(os.path.join(directory, name + '.ring.gz'))

settings = {
    'swift_dir': directory, 'devices': os.path.join(directory, 'devices'), 'mount_check': 'false', 'fallocate_reserve': '0',
    # On a busy machine half a second is soon over, and after ten such errors the only disk is left alone for a minute.
    'conn_timeout': '60', 'node_timeout': '60', 'recoverable_node_timeout': '60', 'error_suppression_limit': '1000000',
    'log_address': os.path.join(directory, 'no-log'), 'log_level': 'CRITICAL', 'log_statsd_host': '',
}
for name, factory in (('account', account_server), ('container', container_server), ('object', object_server)):
    serve(sockets[name], factory(settings))

app = proxy_server({'__file__': os.path.join(directory, 'swift.conf'), '__name__': 'proxy', **settings}, account_autocreate='true', allow_account_management='true')
for factory, more in (
    (dlo.filter_factory, {}),
    (slo.filter_factory, {'min_segment_size': '1'}),
    (copy.filter_factory, {}),
    (tempauth.filter_factory, {'user_test_tester': 'testing .admin'}),
    (bulk.filter_factory, {}),
    (listing_formats.filter_factory, {}),
    # It gives every answer a length.
    (proxy_logging.filter_factory, {}),
    (gatekeeper.filter_factory, {}),
    (catch_errors, {}),
):
    app = factory(settings, **more)(app)
serve(sockets['proxy'], with_memory(app))

print(sockets['proxy'].getsockname()[1], flush=True)
while True:
    eventlet.sleep(3600)
