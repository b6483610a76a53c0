#!/bin/sh
# Makes the certificates of this folder: an authority, a server, a client of that authority, and a client of nobody's.
# They are kept, since the quick tests need nothing but Python; run it again in a hundred years.
set -eu
cd "$(dirname "$0")"
new() { openssl req -x509 -nodes -days 36500 -newkey "$@" 2>/dev/null; }
sign() { openssl req -nodes -newkey rsa:2048 -keyout "$1.key" -subj "/CN=$1" 2>/dev/null |
	openssl x509 -req -days 36500 -CA ca.crt -CAkey ca.key -extfile "$1.ext" -out "$1.crt" 2>/dev/null; rm "$1.ext"; }
new rsa:2048 -keyout ca.key -out ca.crt -subj /CN=authority -addext basicConstraints=critical,CA:true
echo 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' >server.ext && sign server
echo 'subjectAltName=DNS:prometheus,IP:10.0.0.1,IP:fd00::1,email:it@example.com,URI:spiffe://example.com/p' >client.ext && sign client
new rsa:2048 -keyout stranger.key -out stranger.crt -subj /CN=stranger
rm ca.key
