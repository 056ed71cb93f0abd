#!/usr/bin/env bash
# nginx, unpacked and not installed, that takes files by PUT and serves them with sendfile: what any store is held against.
#   ANCHOR_DIR (default: anchors in the home folder)   NGINX_ROOT: where the files lie (default: below it)
# Endpoint http://127.0.0.1:7490 ; for object_store.py: --api swift --token none --storage-path /files
set -euo pipefail
ANCHOR_DIR=${ANCHOR_DIR:-$HOME/anchors}; N=$ANCHOR_DIR/nginx; ROOT=${NGINX_ROOT:-$N/root}
rm -rf "$ROOT/files"  # what is there already would be answered 204
mkdir -p "$N"/{run,log,package} "$ROOT/files"
if [ ! -x "$N/package/usr/sbin/nginx" ]; then
  (cd "$N/package" && apt-get download -qq nginx 2>/dev/null && dpkg-deb -x nginx_*.deb .)
fi
cat > "$N/nginx.conf" <<E
user root;
worker_processes 2;
pid $N/run/nginx.pid;
error_log $N/log/error.log;
events { worker_connections 512; }
http {
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000; access_log off;
  client_max_body_size 0; client_body_temp_path $ROOT/tmp; default_type application/octet-stream;
  proxy_temp_path $N/run/p; fastcgi_temp_path $N/run/f; uwsgi_temp_path $N/run/u; scgi_temp_path $N/run/s;
  server {
    listen 127.0.0.1:7490;
    location = /files/bench { return 201; }
    location /files/ { root $ROOT; dav_methods PUT; create_full_put_path on; }
  }
}
E
if ! { [ -f "$N/run/nginx.pid" ] && kill -0 "$(cat "$N/run/nginx.pid")" 2>/dev/null; }; then
  "$N/package/usr/sbin/nginx" -c "$N/nginx.conf" -e "$N/log/error.log"
fi
echo "nginx up: http://127.0.0.1:7490"
