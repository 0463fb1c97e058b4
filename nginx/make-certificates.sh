#!/bin/sh
# Makes a certificate authority of your own and a server certificate with its chain, for https.conf.
#
#   sh make-certificates.sh FOLDER NAME...
#   sh make-certificates.sh /etc/nginx/tls localhost 127.0.0.1
#
# The NAMEs are host names and addresses; they become the certificate's subjectAltName, the only
# place where clients look.  In FOLDER:
#
#   ca.pem, ca.key                        the root.  Clients are given ca.pem; ca.key belongs offline
#   intermediate.pem, intermediate.key    signed by the root, signs the server's
#   server.pem, server.key                the server's own
#   chain.pem                             server.pem and intermediate.pem: what the server sends
#
# Then it checks what a client with ca.pem checks.  Existing files are never overwritten.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: sh $0 FOLDER NAME..." >&2
    exit 2
fi
folder=$1
shift

names=
for name in "$@"; do
    case "$name" in
    # Only colons and hexadecimal digits, or only dots and digits: an address.
    *[!0-9a-fA-F:]*) case "$name" in *[!0-9.]*) kind=DNS ;; *) kind=IP ;; esac ;;
    *:*) kind=IP ;;
    *) kind=DNS ;;
    esac
    names="$names${names:+,}$kind:$name"
done

for file in ca.key ca.pem intermediate.key intermediate.pem server.key server.pem chain.pem; do
    if [ -e "$folder/$file" ]; then
        echo "$folder/$file exists: move it away first" >&2
        exit 1
    fi
done

# Keys are for the owner alone, from their first byte on.
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# sign WHAT SUBJECT ISSUER DAYS, with the extensions from standard input.
sign() {
    new_key "$1.key"
    cat >extensions
    openssl req -new -sha256 -key "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -sha256 -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" \
        -set_serial "0x$(openssl rand -hex 16 | sed 's/^./4/')" -days "$4" \
        -extfile extensions -out "$1.pem" 2>said || {
        cat said >&2
        exit 1
    }
}

# All is made in a private folder and moved at the end: half a chain never lies in FOLDER.
mkdir -p "$folder"
chmod 755 "$folder"
folder=$(cd "$folder" && pwd)
cd "$work"

new_key ca.key
openssl req -x509 -new -sha256 -key ca.key -subj "/CN=gateways root" -days 3650 -out ca.pem \
    -addext "keyUsage=critical,keyCertSign,cRLSign"

# pathlen:0: it may sign servers' certificates and no further authority.
sign intermediate "/CN=gateways intermediate" ca 3650 <<END
basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
END

# Browsers refuse server certificates that live longer than 398 days.
sign server "/CN=gateways server" intermediate 397 <<END
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
subjectAltName=$names
END

cat server.pem intermediate.pem >chain.pem
chmod 644 ./*.pem

# The client knows the root; the server sends the rest (-untrusted).
openssl verify -purpose sslserver -CAfile ca.pem -untrusted chain.pem server.pem >/dev/null
mv ./*.pem ./*.key "$folder"

cat <<END
$folder: a certificate for $names
Look at it as a client does, who trusts ca.pem alone:
  curl --cacert $folder/ca.pem https://$1:8443/
  openssl s_client -connect 127.0.0.1:8443 -servername $1 -CAfile $folder/ca.pem -verify_return_error -brief </dev/null
END
